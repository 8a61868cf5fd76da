"""Tile positions of a sliding window, and the weights of the voxels within a tile."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from nnunetv2.errors import UsageError

Slicer = tuple[slice | int, ...]


@functools.lru_cache(maxsize=2)
def compute_gaussian(
    tile_size: tuple[int, ...],
    sigma_scale: float = 1.0 / 8,
    value_scaling_factor: float = 1,
    dtype: torch.dtype = torch.float16,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
) -> torch.Tensor:
    """Compute Gaussian weights of a tile's voxels: largest at the centre, positive everywhere.

    Near the border of a tile the network sees little context, so predictions there get the least weight. The result is
    cached; do not modify it in place.

    Args:
        tile_size: voxels per axis.
        sigma_scale: standard deviation as a fraction of the tile size.
        value_scaling_factor: largest weight.

    Returns:
        Tensor of shape `tile_size`. Weights that underflow in `dtype` are set to the smallest nonzero weight.
    """
    weights = np.ones(())
    for size in tile_size:
        impulse = np.zeros(size)
        impulse[size // 2] = 1
        profile = gaussian_filter1d(impulse, size * sigma_scale, mode="constant")
        weights = weights[..., None] * profile
    weights /= weights.max() / value_scaling_factor
    weights = torch.from_numpy(weights).to(device=device, dtype=dtype)
    vanished = weights == 0
    weights[vanished] = weights[~vanished].min()
    return weights


def compute_steps_for_sliding_window(
    image_size: Sequence[int], tile_size: Sequence[int], tile_step_size: float
) -> list[list[int]]:
    """Compute the first voxels of the tiles per axis.

    Tiles are spaced evenly, with the fewest steps of at most `tile_step_size` times the tile: 110 voxels with tiles of
    64 and step 0.5 give [0, 23, 46]. An axis shorter than a tile gives [0], because programs written for upstream call
    this before padding.

    Raises:
        UsageError: the step is not in (0, 1], or image and tile differ in the number of axes.
    """
    if not 0 < tile_step_size <= 1:
        raise UsageError(f"The step size is {tile_step_size}; it is a fraction of the tile, above 0 and at most 1")
    if len(image_size) != len(tile_size):
        raise UsageError(f"Tiles of size {tuple(tile_size)} do not fit an image of size {tuple(image_size)}")
    return [_axis_steps(image, tile, tile_step_size) for image, tile in zip(image_size, tile_size, strict=True)]


def _axis_steps(image: int, tile: int, step_size: float) -> list[int]:
    last = max(image - tile, 0)
    num_intervals = math.ceil(last / (tile * step_size))
    if num_intervals == 0:
        return [0]
    return [round(last / num_intervals * position) for position in range(num_intervals + 1)]


def tile_slicers(image_size: Sequence[int], tile_size: Sequence[int], tile_step_size: float) -> list[Slicer]:
    """Compute the index expressions that cut the tiles out of an image (C, *image_size).

    If the tile has one axis less than the image, it moves over each slice of the first axis.

    Raises:
        UsageError: the image is smaller than a tile; see also `compute_steps_for_sliding_window`.
    """
    num_slice_axes = len(image_size) - len(tile_size)
    if num_slice_axes not in (0, 1):
        raise UsageError(
            f"Tiles of size {tuple(tile_size)} do not fit an image of size {tuple(image_size)}: "
            f"they must have as many axes as the image, or one less"
        )
    if any(size < tile for size, tile in zip(image_size[num_slice_axes:], tile_size, strict=True)):
        raise UsageError(
            f"An image of size {tuple(image_size)} cannot be covered by tiles of size {tuple(tile_size)}; "
            f"pad it to the tile's size first"
        )
    slices = [range(image_size[0])] if num_slice_axes else []
    steps = compute_steps_for_sliding_window(image_size[num_slice_axes:], tile_size, tile_step_size)
    return [
        (
            slice(None),
            *position[:num_slice_axes],
            *(slice(start, start + size) for start, size in zip(position[num_slice_axes:], tile_size, strict=True)),
        )
        for position in itertools.product(*slices, *steps)
    ]


def pad_to_tile_size(image: torch.Tensor, tile_size: Sequence[int]) -> tuple[torch.Tensor, Slicer]:
    """Pad the last axes of an image symmetrically with zeros until a tile fits.

    Returns:
        The image (unchanged if large enough), and the index expression that crops the padded image to the original.
    """
    margins = []
    inner: list[slice] = [slice(None)] * (image.ndim - len(tile_size))
    for size, tile in zip(image.shape[-len(tile_size) :], tile_size, strict=True):
        missing = max(tile - size, 0)
        before = missing // 2
        margins.append((before, missing - before))
        inner.append(slice(before, before + size))
    if any(any(margin) for margin in margins):
        flat = [voxels for margin in reversed(margins) for voxels in margin]
        image = torch.nn.functional.pad(image, flat)
    return image, tuple(inner)
