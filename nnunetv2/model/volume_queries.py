"""Queries over volumes: one set of queries and masks for all slices, which are encoded one by one.

Shapes: B volumes, D slices of each, Q queries, E width, h w size of the pixel features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunetv2.model.depth_fusion import fold

_VOLUMES = 5  # axes of masks of volumes


def shared_queries(queries: Tensor, depth: int) -> Tensor:
    """Gives all slices of a volume the mean of their queries: (B * D, Q, E) -> the same."""
    of_volumes = queries.unflatten(0, (-1, depth))
    return of_volumes.mean(dim=1, keepdim=True).expand_as(of_volumes).flatten(0, 1)


def of_volumes(queries: Tensor, depth: int | None) -> Tensor:
    """Takes queries (B * D, Q, E) that the slices of a volume share; returns (B, Q, E). None: of images, unchanged."""
    return queries if depth is None else queries[::depth]


def mask_logits(queries: Tensor, pixels: Tensor, depth: int | None) -> Tensor:
    """Multiplies queries (B, Q, E) and pixel features.

    Args:
        queries: embedded for masks.
        pixels: (B, E, h, w), of volumes (B * D, E, h, w).
        depth: D; None: of images.

    Returns:
        (B, Q, h, w), of volumes (B, Q, D, h, w).
    """
    if depth is None:
        return torch.einsum("bqe,behw->bqhw", queries, pixels)
    return torch.einsum("bqe,bdehw->bqdhw", queries, pixels.unflatten(0, (-1, depth)))


def masks_of_slices(masks: Tensor) -> Tensor:
    """(B, Q, D, h, w) -> (B * D, Q, h, w); masks of images stay as they are."""
    return fold(masks) if masks.ndim == _VOLUMES else masks
