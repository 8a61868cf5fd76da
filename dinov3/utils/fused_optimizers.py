"""torch's fused optimisers, which skip a step on the device itself: the host need not know whether it is finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_IMPLEMENTATION = ("fused", "foreach", "capturable")


def fused_on(device: torch.device) -> bool | None:
    """Argument `fused` of an optimiser whose parameters are on `device`; None: torch's choice."""
    return True if device.type == "cuda" else None


def skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """True if all groups are updated by a fused kernel."""
    # The groups decide, as a loaded state may have brought those of another implementation.
    supports = getattr(optimizer, "_step_supports_amp_scaling", False)
    return bool(supports) and all(group.get("fused") for group in optimizer.param_groups)


def step_unless(optimizer: torch.optim.Optimizer, is_bad: torch.Tensor) -> None:
    """Takes a step unless `is_bad`, a bool on the device; a skipped step changes neither weights nor moments."""
    optimizer.grad_scale, optimizer.found_inf = None, is_bad.float()  # as torch's GradScaler does
    try:
        optimizer.step()
    finally:
        del optimizer.grad_scale, optimizer.found_inf


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Gives a fused SGD buffers of zeros, with which its first step is the same.

    Without them, torch allocates the buffers in the first step and leaves them unfilled if it is skipped. A GradScaler
    starts with a scale that makes it skip the first steps.
    """
    if not isinstance(optimizer, torch.optim.SGD) or not skips_on_device(optimizer):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)


def with_own_implementation(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a state to load, stored on any device, such that the optimiser keeps its own implementation."""
    groups = []
    for own, stored in zip(optimizer.param_groups, state["param_groups"], strict=False):
        groups.append({**stored, **{name: own[name] for name in _IMPLEMENTATION if name in own}})
    return {**state, "param_groups": [*groups, *state["param_groups"][len(groups) :]]}
