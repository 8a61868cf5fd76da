"""The voxel spacing that a dataset is resampled to, and the order of its axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_COARSE_AXIS_PERCENTILE = 10
_MARGIN = 1e-5  # mm
_COARSENING_STEP = 1.03
_MAX_RATIO_IN_LOWRES = 2


def fullres_target_spacing(
    spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]], anisotropy_threshold: float
) -> np.ndarray:
    """Returns the median spacing of a dataset, finer along an axis that is much coarser than the others.

    An axis is much coarser if both its spacing is larger and its number of voxels smaller than those of the other axes
    by more than `anisotropy_threshold`. At the median, half of the cases would lose some of their few slices; the 10th
    percentile keeps those of nearly all cases. It is bounded below by the spacing of the other axes.

    Args:
        spacings: mm per case and axis.
        shapes: voxels per case and axis.
        anisotropy_threshold: ratio above which an axis is considered coarser.
    """
    spacings, shapes = np.vstack(spacings), np.vstack(shapes)
    target, median_shape = np.percentile(spacings, 50, 0), np.percentile(shapes, 50, 0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != worst]
    coarsest_other = max(target[others])
    is_coarse = target[worst] > anisotropy_threshold * coarsest_other
    has_few_slices = median_shape[worst] * anisotropy_threshold < min(median_shape[others])
    if is_coarse and has_few_slices:
        finer = np.percentile(spacings[:, worst], _COARSE_AXIS_PERCENTILE)
        target[worst] = finer if finer >= coarsest_other else coarsest_other + _MARGIN
    return target


def axis_order(
    target_spacing: Sequence[float], median_shape: Sequence[float] | None = None
) -> tuple[list[int], list[int]]:
    """Puts the slice axis first: an axis of length one, else the coarsest, so that slices have the finest resolution.

    Args:
        target_spacing: mm per axis.
        median_shape: voxels per axis at that spacing; None: no axis has length one.

    Returns:
        Axes in the new order, and the inverse order.
    """
    axes = range(len(target_spacing))
    single = [axis for axis in axes if median_shape is not None and median_shape[axis] == 1]
    first = max(single or axes, key=lambda axis: target_spacing[axis])
    forward = [first] + [axis for axis in axes if axis != first]
    return forward, [forward.index(axis) for axis in range(len(forward))]


def slightly_coarser(spacing: np.ndarray) -> np.ndarray:
    """Returns the next spacing to try for a low-resolution stage.

    Axes that are more than twice as fine as the coarsest one are coarsened first; after that, all axes.
    """
    much_finer = max(spacing) / spacing > _MAX_RATIO_IN_LOWRES
    grows = much_finer if much_finer.any() else np.ones(len(spacing), dtype=bool)
    return np.where(grows, spacing * _COARSENING_STEP, spacing)
