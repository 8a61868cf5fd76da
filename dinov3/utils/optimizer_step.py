"""One update of the weights: backward pass, gradient clipping, and skipping of non-finite gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from dinov3.utils.divergence import DivergenceGuard
from dinov3.utils.fused_optimizers import skips_on_device, start_momentum, step_unless
from dinov3.utils.host_copies import LateScalar, LateValues


@dataclass(frozen=True)
class Update:
    """Loss and gradient norm of one call of `update_weights`, which may still be on their way to the host."""

    values: LateValues

    @property
    def loss(self) -> np.ndarray | LateScalar:
        """Zero-dimensional, float32."""
        return self.values.read()[0, ...] if self.values.is_read else LateScalar(self.values, 0)

    @property
    def gradient_norm(self) -> float:
        """L2 norm of the gradient over all parameters, before clipping; waits for it."""
        return float(self.values.read()[1])

    def read(self) -> tuple[float, float]:
        """Loss and gradient norm; waits for them."""
        return float(self.values.read()[0]), self.gradient_norm


def update_weights(
    loss: torch.Tensor,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    *,
    clip_norm: float | None,
    guard: DivergenceGuard,
) -> Update:
    """Takes one optimiser step with the gradient of `loss`, unless loss or gradient are not finite.

    With a fused optimiser on CUDA, the device skips the step and the host does not wait: the guard learns of it with
    the next call, or from `DivergenceGuard.settle`. Elsewhere, the host reads loss and norm, together, and decides.

    Args:
        loss: scalar.
        scaler: for fp16; it skips steps whose scaled gradients overflow, which is part of finding its scale.
        clip_norm: maximum L2 norm of the gradient over all parameters; None: no clipping.
        guard: counts skipped steps.

    Returns:
        Loss and gradient norm.

    Raises:
        DivergedError: too many consecutive steps were skipped.
    """
    # The gradient of an infinite loss may be finite, so it is made non-finite: processes have different losses but
    # share the averaged gradient, so that either all of them take the step or none.
    source = loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)
    if scaler is not None:
        scaler.scale(source).backward()
        scaler.unscale_(optimizer)  # clipping applies to the true gradients
    else:
        source.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), math.inf if clip_norm is None else clip_norm)
    update = Update(LateValues(torch.stack((loss.detach().float(), norm.float()))))
    is_late = loss.device.type == "cuda" and skips_on_device(optimizer)
    # With a scaler, the gradient norm is not judged: the scaler itself skips steps that overflow.
    judged = update.read if scaler is None else lambda: (update.read()[0], 0.0)
    if is_late:
        start_momentum(optimizer)
    is_accepted = is_late or guard.accepts(*judged())
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    elif is_late:
        step_unless(optimizer, ~(loss.detach().isfinite() & norm.isfinite()))
    elif is_accepted:
        optimizer.step()
    if is_late:
        guard.accepts_later(judged)
    return update
