"""Where a U-Net halves which axis, and the kernel sizes between: from voxel spacing and patch size alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Sizes = tuple[tuple[int, ...], ...]

_MAX_SPACING_RATIO = 2  # axes within this factor of the finest one count as equally fine
_MIN_EDGE_FOR_SINGLE_AXIS = 3  # times the smallest edge; an axis that would be halved alone needs to be longer


class Topology(NamedTuple):
    """The shape of a U-Net for one patch size; a plain tuple in upstream's order."""

    num_pool_per_axis: list[int]
    """How often each axis is halved."""
    strides: Sizes
    """Per stage and axis; the first stage has stride 1."""
    kernel_sizes: Sizes
    """Per stage and axis: 3, or 1 along axes that are still too coarse."""
    patch_size: tuple[int, ...]
    """The patch, enlarged to multiples of `must_be_divisible_by`."""
    must_be_divisible_by: np.ndarray
    """2 ** `num_pool_per_axis`."""


def get_shape_must_be_divisible_by(net_numpool_per_axis: Sequence[int]) -> np.ndarray:
    """Returns the multiple that each axis of a patch must be for a network that halves it so often."""
    return 2 ** np.asarray(net_numpool_per_axis)


def pad_shape(shape: Sequence[float], must_be_divisible_by: int | Sequence[int]) -> np.ndarray:
    """Enlarges each axis to the next multiple; one divisor may serve all axes.

    Raises:
        ValueError: there are neither one nor as many divisors as axes.
    """
    divisors = np.broadcast_to(np.asarray(must_be_divisible_by, dtype=int), (len(shape),))
    return np.array([math.ceil(size / divisor) * divisor for size, divisor in zip(shape, divisors, strict=True)])


def get_pool_and_conv_props(
    spacing: Sequence[float], patch_size: Sequence[float], min_feature_map_size: int, max_numpool: int
) -> Topology:
    """Halves the finest axes again and again, as long as they are long enough.

    Each step halves all axes whose current spacing is within a factor of two of the finest among those that are long
    enough. A convolution does not look along an axis (kernel size 1) until its spacing is within a factor of two of the
    finest; from then on it does.

    Args:
        spacing: mm per axis (or any unit), in the order of `patch_size`.
        patch_size: voxels per axis; need not be whole.
        min_feature_map_size: smallest edge of the feature maps at the bottom.
        max_numpool: how often an axis may be halved at most.
    """
    spacing, sizes = list(spacing), list(patch_size)
    num_axes = len(spacing)
    num_pool, kernel = [0] * num_axes, [1] * num_axes
    strides, kernels = [(1,) * num_axes], []
    while axes := _axes_to_halve(spacing, sizes, num_pool, min_feature_map_size, max_numpool):
        finest = min(spacing)
        kernel = [3 if k == 3 or s / finest < _MAX_SPACING_RATIO else 1 for k, s in zip(kernel, spacing, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in axes else 1 for axis in range(num_axes)))
        for axis in axes:
            num_pool[axis] += 1
            spacing[axis] *= 2
            sizes[axis] = math.ceil(sizes[axis] / 2)
    kernels.append((3,) * num_axes)  # the bottom always looks along all axes
    divisors = get_shape_must_be_divisible_by(num_pool)
    padded = tuple(int(size) for size in pad_shape(patch_size, divisors))
    return Topology(num_pool, tuple(strides), tuple(kernels), padded, divisors)


def _axes_to_halve(
    spacing: Sequence[float], sizes: Sequence[float], num_pool: Sequence[int], min_edge: int, max_num_pool: int
) -> list[int]:
    long_enough = [axis for axis, size in enumerate(sizes) if size >= 2 * min_edge]
    if not long_enough:
        return []
    finest = min(spacing[axis] for axis in long_enough)
    fine = [axis for axis in long_enough if spacing[axis] / finest < _MAX_SPACING_RATIO]
    axes = [axis for axis in fine if num_pool[axis] < max_num_pool]
    if len(axes) == 1 and sizes[axes[0]] < _MIN_EDGE_FOR_SINGLE_AXIS * min_edge:
        return []
    return axes
