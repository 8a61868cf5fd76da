"""Average a network's predictions over mirrored copies of its input."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from nnunetv2.errors import UsageError

Network = Callable[[torch.Tensor], torch.Tensor]


def mirrorings(axes: Sequence[int] | None) -> list[tuple[int, ...]]:
    """All subsets of axes to mirror together, the empty set first: (0, 1) gives (), (0,), (1,), (0, 1)."""
    axes = tuple(axes or ())
    return [chosen for count in range(len(axes) + 1) for chosen in itertools.combinations(axes, count)]


def predict_mirrored(
    network: Network, tiles: torch.Tensor, axes: Sequence[int] | None, max_batch_size: int = 1
) -> torch.Tensor:
    """Average the predictions over all mirrored copies of the input, each mirrored back.

    Args:
        network: maps (B, C, *spatial) to (B, K, *spatial).
        tiles: (B, C, *spatial).
        axes: spatial axes to mirror, counted from 0; None or empty disables mirroring.
        max_batch_size: copies are batched up to this size.

    Raises:
        UsageError: the input has no such axis.
    """
    num_spatial_axes = tiles.ndim - 2
    if axes and not all(0 <= axis < num_spatial_axes for axis in axes):
        raise UsageError(
            f"The model was trained for mirroring along the axes {tuple(axes)}, but a tile has "
            f"{num_spatial_axes} spatial axes; disable mirroring (--disable_tta) or correct the checkpoint"
        )
    flips = [tuple(axis + 2 for axis in chosen) for chosen in mirrorings(axes)]
    copies_at_once = max(1, max_batch_size // len(tiles))
    total: torch.Tensor | None = None
    for first in range(0, len(flips), copies_at_once):
        group = flips[first : first + copies_at_once]
        for prediction, flip in zip(_predict_copies(network, tiles, group), group, strict=True):
            restored = prediction.flip(flip) if flip else prediction
            total = restored if total is None else total + restored  # not in place: the network may return its input
    return total if len(flips) == 1 else total / len(flips)


def _predict_copies(network: Network, tiles: torch.Tensor, flips: list[tuple[int, ...]]) -> Sequence[torch.Tensor]:
    copies = [tiles.flip(flip) if flip else tiles for flip in flips]
    if len(copies) == 1:
        return [network(copies[0])]
    return network(torch.cat(copies)).split(len(tiles))
