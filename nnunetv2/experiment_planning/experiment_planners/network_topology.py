"""Topology of a dataset's U-Net: pooling per axis, the largest patch that fits, and the entry in the plans."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnunetv2.errors import DataError, UsageError

Sizes = tuple[tuple[int, ...], ...]

_MAX_SPACING_RATIO = 2  # axes within this factor of the finest one are considered equally fine
_MIN_EDGE_FOR_SINGLE_AXIS = 3  # times the smallest edge; minimum length of an axis that would be halved alone
# Volume of the first candidate; too large for any single GPU.
INITIAL_EDGE = {2: 2048, 3: 256}
_UNLIMITED = 999999


class Topology(NamedTuple):
    """Topology of a U-Net for one patch size; a plain tuple in upstream's order."""

    num_pool_per_axis: list[int]
    """Number of halvings per axis."""
    strides: Sizes
    """Per stage and axis; the first stage has stride 1."""
    kernel_sizes: Sizes
    """Per stage and axis: 3, or 1 along axes that are still too coarse."""
    patch_size: tuple[int, ...]
    """The patch, enlarged to multiples of `must_be_divisible_by`."""
    must_be_divisible_by: np.ndarray
    """2 ** `num_pool_per_axis`."""


def get_shape_must_be_divisible_by(net_numpool_per_axis: Sequence[int]) -> np.ndarray:
    """Returns the divisor of each axis of a patch for the given number of halvings."""
    return 2 ** np.asarray(net_numpool_per_axis)


def pad_shape(shape: Sequence[float], must_be_divisible_by: int | Sequence[int]) -> np.ndarray:
    """Rounds each axis up to the next multiple; a single divisor applies to all axes.

    Raises:
        ValueError: the number of divisors is neither one nor the number of axes.
    """
    divisors = np.broadcast_to(np.asarray(must_be_divisible_by, dtype=int), (len(shape),))
    return np.array([math.ceil(size / divisor) * divisor for size, divisor in zip(shape, divisors, strict=True)])


def get_pool_and_conv_props(
    spacing: Sequence[float], patch_size: Sequence[float], min_feature_map_size: int, max_numpool: int
) -> Topology:
    """Repeatedly halves the finest axes as long as they are long enough.

    Each step halves all axes whose current spacing is within a factor of two of the finest among those that are long
    enough. The kernel size along an axis is 1 until its spacing is within a factor of two of the finest, then 3.

    Args:
        spacing: mm per axis (or any unit), in the order of `patch_size`.
        patch_size: voxels per axis; may be fractional.
        min_feature_map_size: smallest edge of the feature maps at the bottom.
        max_numpool: maximum number of halvings per axis.
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
    kernels.append((3,) * num_axes)  # the bottleneck always has kernel size 3
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


def initial_patch_size(spacing: Sequence[float], median_shape: Sequence[float]) -> list[float]:
    """Returns a patch of equal length in mm along all axes, limited to the median image."""
    num_axes = len(spacing)
    inverse = [1 / s for s in spacing]
    scale = (INITIAL_EDGE[num_axes] ** num_axes / math.prod(inverse)) ** (1 / num_axes)
    return [min(round(i * scale), size) for i, size in zip(inverse, median_shape, strict=False)]


def topology_of(spacing: Sequence[float], patch_size: Sequence[float], min_edge: int) -> Topology:
    return get_pool_and_conv_props(spacing, patch_size, min_edge, _UNLIMITED)


def shrunk(topology: Topology, spacing: Sequence[float], median_shape: Sequence[float], min_edge: int) -> Topology:
    """Returns the next smaller candidate: shrinks the axis that covers most of the median image.

    The step is the divisor of the axis *after* shrinking: 256, halved six times, would otherwise shrink by 64, although
    224, halved five times, is a valid size in between.

    Raises:
        UsageError: no axis can be shrunk any more.
    """
    sizes = list(topology.patch_size)
    axes = [axis for axis, size in enumerate(sizes) if size > topology.must_be_divisible_by[axis]]
    if not axes:
        raise _memory_error(topology)
    axis = max(axes, key=lambda a: (sizes[a] / median_shape[a], a))
    trial = list(sizes)
    trial[axis] -= int(topology.must_be_divisible_by[axis])
    step = int(topology_of(spacing, trial, min_edge).must_be_divisible_by[axis])
    sizes[axis] -= step
    return topology_of(spacing, sizes, min_edge)


def largest_fitting(
    spacing: Sequence[float], median_shape: Sequence[float], min_edge: int, fits: Callable[[Topology], bool]
) -> Topology:
    """Shrinks the initial patch until its network fits.

    A U-Net needs two stages. Images that are too small for a second one get a patch that is larger than they are;
    training and prediction pad them.

    Args:
        spacing: mm per axis, two or three axes.
        median_shape: median shape of the images at this spacing, voxels per axis.
        min_edge: smallest edge of the feature maps at the bottom of the network.
        fits: returns true if the network of a topology fits into memory.

    Raises:
        DataError: the images are too small for any patch.
        UsageError: no network of two stages fits.
    """
    original, median_shape = median_shape, list(median_shape)
    topology = topology_of(spacing, initial_patch_size(spacing, median_shape), min_edge)
    # A single axis must be longer to be halved: images with a coarse axis may need the second enlargement.
    for length in (2 * min_edge, _MIN_EDGE_FOR_SINGLE_AXIS * min_edge):
        if not _has_two_stages(topology):
            median_shape = [max(size, length) if size >= min_edge else size for size in original]
            topology = topology_of(spacing, initial_patch_size(spacing, median_shape), min_edge)
    if not _has_two_stages(topology):
        raise DataError(
            f"The median image has {_dimensions(original)} {'pixels' if len(spacing) == 2 else 'voxels'} (at the "
            f"target spacing, without the empty border), which is too small for a network: at least one axis must have "
            f"{min_edge}; use larger images, or a finer target spacing"
        )
    while not fits(topology):
        topology = shrunk(topology, spacing, median_shape, min_edge)
    if not _has_two_stages(topology):
        raise _memory_error(topology)
    return topology


def _has_two_stages(topology: Topology) -> bool:
    return len(topology.strides) > 1


def _memory_error(topology: Topology) -> UsageError:
    return UsageError(
        f"No network fits into the GPU memory target, even with a patch of {_dimensions(topology.patch_size)}; "
        f"raise it (-gpu_memory_target)"
    )


def _dimensions(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


def unet_architecture(
    topology: Topology,
    network_class: str | type,
    *,
    base_features: int,
    max_features: int,
    encoder_depths: Mapping[str, Sequence[int]],
    decoder_depths: Sequence[int],
) -> dict[str, Any]:
    """Returns class and arguments of the network; the order of keys is part of the format.

    Args:
        topology: strides and kernel sizes of the stages.
        network_class: the class, or its dotted name.
        base_features: channels of the first stage; they double from stage to stage.
        max_features: upper limit for channels.
        encoder_depths: convolutions or blocks per stage, under the class's argument name; surplus stages are ignored.
        decoder_depths: convolutions per decoder stage; surplus stages are ignored.
    """
    num_axes, num_stages = len(topology.patch_size), len(topology.strides)
    if not isinstance(network_class, str):
        network_class = f"{network_class.__module__}.{network_class.__name__}"
    return {
        "network_class_name": network_class,
        "arch_kwargs": {
            "n_stages": num_stages,
            "features_per_stage": tuple(min(max_features, base_features * 2**stage) for stage in range(num_stages)),
            "conv_op": f"torch.nn.modules.conv.Conv{num_axes}d",
            "kernel_sizes": topology.kernel_sizes,
            "strides": topology.strides,
            **{name: tuple(depths[:num_stages]) for name, depths in encoder_depths.items()},
            "n_conv_per_stage_decoder": tuple(decoder_depths[: num_stages - 1]),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{num_axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ("conv_op", "norm_op", "dropout_op", "nonlin"),
    }
