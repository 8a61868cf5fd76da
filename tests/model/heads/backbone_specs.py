"""Sizes of the released backbones, and parameters of a head on them, without building a backbone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from nnunetv2.model.head import BackboneSpec, Head

_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}


def backbone_spec(size: str = "S", **changes: int) -> BackboneSpec:
    """A DINOv3 of size S, B or L, or what differs from it in some sizes."""
    width, depth, heads = _SIZES[size]
    return replace(BackboneSpec(width, depth, 16, heads, num_prefix_tokens=5, in_channels=3), **changes)


def num_parameters(head: type[Head], size: str, **settings: Any) -> int:
    """Parameters of a head with two classes."""
    with torch.device("meta"):
        built = head(head.Config(**settings), backbone_spec(size), 2)
    return sum(parameter.numel() for parameter in built.parameters())
