"""One update of the weights: backward pass, gradient clipping, and no step on gradients that are not finite."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from dinov3.utils.divergence import DivergenceGuard


class Update(NamedTuple):
    """What one call of `update_weights` saw."""

    loss: np.ndarray
    """Zero-dimensional, float32."""
    gradient_norm: float
    """L2 norm of the gradient over all parameters, before clipping."""


def update_weights(
    loss: torch.Tensor,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    *,
    clip_norm: float | None,
    guard: DivergenceGuard,
) -> Update:
    """Takes one optimiser step along the gradient of `loss`, unless loss or gradient are not finite.

    The host waits for the device once, for loss and norm together.

    Args:
        loss: scalar.
        scaler: for fp16; it skips steps whose scaled gradients overflow, which is part of finding its scale.
        clip_norm: largest L2 norm of the gradient over all parameters; None does not clip.
        guard: counts the steps that could not be taken.

    Returns:
        Loss and gradient norm.

    Raises:
        DivergedError: too many such steps in a row.
    """
    # The gradient of an infinite loss may be finite. It must not be: of several processes, each with a loss of its own,
    # all know the common gradient, and either all take the step or none.
    source = loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)
    if scaler is not None:
        scaler.scale(source).backward()
        scaler.unscale_(optimizer)
    else:
        source.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), math.inf if clip_norm is None else clip_norm)
    values = torch.stack((loss.detach().float(), norm.float())).cpu().numpy()
    update = Update(values[0, ...], float(values[1]))
    if scaler is not None:
        guard.accepts(float(update.loss))
        scaler.step(optimizer)
        scaler.update()
    elif guard.accepts(float(update.loss), update.gradient_norm):
        optimizer.step()
    return update
