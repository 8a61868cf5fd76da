"""Sizes of the released backbones, and parameters of a head on them, without building a backbone."""

from __future__ import annotations

from typing import Any

import torch

from nnunetv2.model.head import BackboneSpec, Head

_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}


def backbone_spec(size: str = "S", patch_size: int = 16, embed_dim: int | None = None) -> BackboneSpec:
    """A DINOv3 of size S, B or L; or one of another width or patch size."""
    width, depth, heads = _SIZES[size]
    return BackboneSpec(embed_dim or width, depth, patch_size, heads, num_prefix_tokens=5, in_channels=3)


def num_parameters(head: type[Head], size: str, **settings: Any) -> int:
    """Parameters of a head with two classes."""
    with torch.device("meta"):
        built = head(head.Config(**settings), backbone_spec(size), 2)
    return sum(parameter.numel() for parameter in built.parameters())
