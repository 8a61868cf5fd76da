"""The residual connection of a transformer block with layer scale, as one kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def add_scaled(tokens: Tensor, update: Tensor, scale: Tensor) -> Tensor:
    """Computes tokens + scale * update.

    Args:
        tokens: (..., D).
        update: (..., D), also in half precision.
        scale: (D,).

    Returns:
        (..., D) in the widest of the dtypes.
    """
    if scale.requires_grad or torch.compiler.is_compiling():  # the compiler writes kernels of its own
        return tokens + scale * update
    return _AddScaled.apply(tokens, update, scale)


class _AddScaled(torch.autograd.Function):
    """Neither the product nor an update in half precision is written out in float32, forwards or backwards."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, update: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        ctx.dtypes = tokens.dtype, update.dtype
        with torch.autocast(tokens.device.type, enabled=False):  # which would cast the update by a kernel of its own
            return torch.addcmul(tokens, update, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (scale,) = ctx.saved_tensors
        of_tokens, of_update = ctx.dtypes
        through = torch.mul(gradient, scale, out=torch.empty_like(gradient, dtype=of_update))
        return gradient.to(of_tokens), through, None
