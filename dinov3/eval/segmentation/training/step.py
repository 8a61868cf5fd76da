"""Common parts of a training step for all heads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinov3.utils.divergence import DivergenceGuard
from dinov3.utils.optimizer_step import Update, update_weights


@dataclass(frozen=True)
class StepResult:
    """Losses and gradient norm of a step."""

    losses: dict[str, Tensor]
    """Scalars on the device: the minimised `loss` and its terms."""
    update: Update

    @property
    def gradient_norm(self) -> float:
        """L2 over all parameters, before clipping; waits for the device."""
        return self.update.gradient_norm


def forward_precision(device: torch.device | str, model_dtype: torch.dtype | None) -> AbstractContextManager:
    """Autocast to half precision; no-op for float32 or None. Losses are computed outside of it."""
    enabled = model_dtype not in (None, torch.float32)
    return torch.autocast(torch.device(device).type, dtype=model_dtype if enabled else None, enabled=enabled)


def finish_step(
    loss: Tensor,
    terms: Mapping[str, Tensor],
    network: nn.Module,
    scaler: torch.amp.GradScaler | None,
    optimizer: torch.optim.Optimizer,
    clip_norm: float | None,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    guard: DivergenceGuard,
) -> StepResult:
    """Updates the weights with the gradient of `loss` if it is finite, and steps the learning rate schedule.

    Raises:
        DivergedError: Too many consecutive steps had a non-finite loss or gradient.
    """
    update = update_weights(loss, network, optimizer, scaler, clip_norm=clip_norm, guard=guard)
    scheduler.step()
    losses = {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}
    return StepResult(losses, update)
