"""Normalisation layers of vision transformers, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

# The epsilons are part of the released models; the second was chosen for training in bfloat16.
NORM_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "layernorm": functools.partial(nn.LayerNorm, eps=1e-6),
    "layernormbf16": functools.partial(nn.LayerNorm, eps=1e-5),
    "rmsnorm": functools.partial(nn.RMSNorm, eps=1e-5),
}


def make_norm(name: str, dim: int, device: torch.device | str | None = None) -> nn.Module:
    """Builds a normalisation over the last axis of `dim` channels.

    Raises:
        ValueError: If the name is not in `NORM_LAYERS`.
    """
    if name not in NORM_LAYERS:
        raise ValueError(f"norm_layer {name!r} is unknown; choose one of {', '.join(NORM_LAYERS)}.")
    return NORM_LAYERS[name](dim, device=device)
