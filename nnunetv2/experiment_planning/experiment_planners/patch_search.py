"""The largest patch size whose network fits into a memory budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nnunetv2.experiment_planning.experiment_planners.network_topology import Topology, get_pool_and_conv_props

# Volume of the first candidate; certainly too large for the memory of any one GPU.
INITIAL_EDGE = {2: 2048, 3: 256}
_UNLIMITED = 999999


def initial_patch_size(spacing: Sequence[float], median_shape: Sequence[float]) -> list[float]:
    """Returns a patch that is as long in mm along all axes, but nowhere longer than the median image."""
    num_axes = len(spacing)
    inverse = [1 / s for s in spacing]
    scale = (INITIAL_EDGE[num_axes] ** num_axes / math.prod(inverse)) ** (1 / num_axes)
    return [min(round(i * scale), size) for i, size in zip(inverse, median_shape, strict=False)]


def topology_of(spacing: Sequence[float], patch_size: Sequence[float], min_edge: int) -> Topology:
    return get_pool_and_conv_props(spacing, patch_size, min_edge, _UNLIMITED)


def shrunk(topology: Topology, spacing: Sequence[float], median_shape: Sequence[float], min_edge: int) -> Topology:
    """Returns the next smaller candidate: the axis that covers most of the median image gives way.

    The step is what the axis must be divisible by *after* shrinking: 256, halved six times, would lose 64 at once,
    although 224, halved five times, is a valid size between.
    """
    sizes = list(topology.patch_size)
    axis = max(range(len(sizes)), key=lambda a: (sizes[a] / median_shape[a], a))
    trial = list(sizes)
    trial[axis] -= int(topology.must_be_divisible_by[axis])
    step = int(topology_of(spacing, trial, min_edge).must_be_divisible_by[axis])
    sizes[axis] -= step
    return topology_of(spacing, sizes, min_edge)


def largest_fitting(
    spacing: Sequence[float], median_shape: Sequence[float], min_edge: int, fits: Callable[[Topology], bool]
) -> Topology:
    """Shrinks the initial patch until its network fits.

    Args:
        spacing: mm per axis, two or three axes.
        median_shape: of the images at this spacing, voxels per axis.
        min_edge: smallest edge of the feature maps at the bottom of the network.
        fits: whether the network of a topology fits into memory.
    """
    topology = topology_of(spacing, initial_patch_size(spacing, median_shape), min_edge)
    while not fits(topology):
        topology = shrunk(topology, spacing, median_shape, min_edge)
    return topology
