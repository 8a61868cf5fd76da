"""One update of the weights: backward pass, gradient clipping, and skipping of non-finite gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from dinov3.utils.divergence import DivergenceGuard


class Update(NamedTuple):
    """Loss and gradient norm of one call of `update_weights`."""

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
    """Takes one optimiser step with the gradient of `loss`, unless loss or gradient are not finite.

    Synchronises with the device once, for loss and norm together.

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
    values = torch.stack((loss.detach().float(), norm.float())).cpu().numpy()
    update = Update(values[0, ...], float(values[1]))
    if scaler is not None:
        # The gradient norm is not checked: the scaler itself skips steps that overflow.
        guard.accepts(float(update.loss))
        scaler.step(optimizer)
        scaler.update()
    elif guard.accepts(float(update.loss), update.gradient_norm):
        optimizer.step()
    return update
