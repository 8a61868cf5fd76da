"""Resizing of label maps: the label with the largest interpolated share of a voxel wins.

The result equals `batchgenerators.augmentations.utils.resize_segmentation(labels, shape, order=1)`, which interpolates
one indicator image per label over the whole volume. Here each new voxel compares its 2x2x2 old neighbours: if they
agree, nothing is computed; otherwise the shares are summed in scipy's order of operations, because exact ties between
labels are common (every even upsampling has them) and are decided by equality of the sums.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_VOXELS_AT_A_TIME = 1 << 14  # keeps the working arrays of one step inside the CPU's cache
_SAFE_MAJORITY = 0.5 + 1e-9  # shares sum to 1 within rounding, so above this no other label can win or tie


@dataclass(frozen=True)
class LinearNeighbours:
    """For each new voxel along one axis: the old voxels around it, each with its weight, and the nearest of them.

    `around` holds `(indices, weights)` of the lower and the upper neighbour; if an axis keeps its length, there is one
    pair with weights of 1.
    """

    around: tuple[tuple[np.ndarray, np.ndarray], ...]
    nearest: np.ndarray


def nearest_indices(old_length: int, new_length: int) -> np.ndarray:
    """Returns the old voxel that nearest-neighbour resizing selects for each new one, rounded as in scipy."""
    positions = np.arange(old_length, dtype=np.float64)
    if old_length == new_length:
        return positions.astype(np.intp)
    nearest = ndimage.zoom(positions, new_length / old_length, order=0, mode="nearest", grid_mode=True)
    return nearest.astype(np.intp)


@functools.lru_cache(maxsize=32)
def linear_neighbours(old_length: int, new_length: int) -> LinearNeighbours:
    """Neighbours and weights of linear resizing along one axis, rounded as in `scipy.ndimage.zoom(grid_mode=True)`.

    Beyond the ends of the axis both neighbours are the same old voxel, each with its own weight: merging them would
    round the sums differently.
    """
    nearest = nearest_indices(old_length, new_length)
    if old_length == new_length:
        return LinearNeighbours(((nearest, np.ones(new_length)),), nearest)
    centre = (np.arange(new_length) + 0.5) * (old_length / new_length) - 0.5
    lower = np.floor(centre)
    weight_lower = 1.0 - (centre - lower)
    lower = lower.astype(np.intp)
    indices = (np.clip(index, 0, old_length - 1) for index in (lower, lower + 1))
    return LinearNeighbours(tuple(zip(indices, (weight_lower, 1.0 - weight_lower), strict=True)), nearest)


def resize_nearest(volume: np.ndarray, new_shape: Sequence[int]) -> np.ndarray:
    """Resizes an array of any rank by nearest neighbour along each axis."""
    for axis, (old, new) in enumerate(zip(volume.shape, new_shape, strict=True)):
        if old != new:
            volume = np.take(volume, nearest_indices(old, new), axis=axis)
    return volume


def resize_labels(labels: np.ndarray, new_shape: Sequence[int], order: int = 1) -> np.ndarray:
    """Resizes a label map without creating new label values.

    Args:
        labels: `(X, Y, Z)` of any dtype that holds the label values.
        new_shape: new size per axis.
        order: 0: nearest voxel. 1: label with the largest linearly interpolated share; ties go to the label of the
            nearest voxel if it is among them, else to the smallest label. Higher orders use batchgenerators'
            implementation.

    Returns:
        Array of `new_shape` with the dtype of `labels`.
    """
    new_shape = tuple(int(size) for size in new_shape)
    if order == 0:
        return resize_nearest(labels, new_shape)
    if order > 1:
        from batchgenerators.augmentations.utils import resize_segmentation

        return resize_segmentation(labels, new_shape, order)
    labels = np.ascontiguousarray(labels)
    axes = [linear_neighbours(old, new) for old, new in zip(labels.shape, new_shape, strict=True)]
    result = np.ascontiguousarray(resize_nearest(labels, new_shape))
    undecided = np.flatnonzero(_lies_between_labels(labels, axes))
    flat_result = result.reshape(-1)
    values = np.unique(labels)
    for start in range(0, undecided.size, _VOXELS_AT_A_TIME):
        chosen = undecided[start : start + _VOXELS_AT_A_TIME]
        flat_result[chosen] = _largest_share(labels, values, np.unravel_index(chosen, new_shape), axes)
    return result


def _lies_between_labels(labels: np.ndarray, axes: Sequence[LinearNeighbours]) -> np.ndarray:
    """Boolean array of the new shape: True where the old voxels around a new one do not all carry the same label."""
    differs = np.zeros(labels.shape, dtype=bool)
    for corner in itertools.product(*(range(len(axis.around)) for axis in axes)):
        if any(corner):
            here = tuple(slice(None, size - step) for step, size in zip(corner, labels.shape, strict=True))
            there = tuple(slice(step, None) for step in corner)
            differs[here] |= labels[here] != labels[there]
    for axis, neighbours in enumerate(axes):
        lower, _ = neighbours.around[0]  # voxel 0 beyond the lower end: at worst an unneeded comparison
        differs = np.take(differs, lower, axis=axis)
    return differs


def _largest_share(
    labels: np.ndarray,
    values: np.ndarray,
    positions: Sequence[np.ndarray],
    axes: Sequence[LinearNeighbours],
) -> np.ndarray:
    """The winning label of each new voxel given by `positions` (one index array per axis)."""
    around, weights = _surroundings(labels, positions, axes)
    winner = labels[tuple(axis.nearest[position] for position, axis in zip(positions, axes, strict=True))]
    # Most voxels are decided here: no other label can reach the share of the nearest voxel's label.
    contested = np.flatnonzero(_share(around, weights, winner) < _SAFE_MAJORITY)
    if contested.size:
        around, weights = around.take(contested, axis=1), weights.take(contested, axis=1)
        winner[contested] = _contest(around, weights, winner[contested], values)
    return winner


def _contest(around: np.ndarray, weights: np.ndarray, nearest: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compares the shares of all labels; the nearest label is kept unless another share is larger."""
    # With few labels all are candidates; with many it is cheaper to compare only those around the voxel.
    candidates = values if len(values) <= len(around) else around
    winner = nearest.copy()
    best = _share(around, weights, nearest)
    nearest_holds = np.ones(nearest.shape, dtype=bool)
    for candidate in candidates:
        share = _share(around, weights, candidate)
        takes_lead = (share > best) | ((share == best) & ~nearest_holds & (candidate < winner))
        np.copyto(winner, candidate, where=takes_lead)
        np.copyto(best, share, where=takes_lead)
        nearest_holds &= ~takes_lead
    return winner


def _surroundings(
    labels: np.ndarray, positions: Sequence[np.ndarray], axes: Sequence[LinearNeighbours]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the old voxels around each new one and their weights, both `(neighbours, voxels)`.

    The last axis varies fastest and weights are multiplied starting from the first axis, as in scipy.
    """
    offsets: list[np.ndarray] = [np.zeros(1, dtype=np.intp)]
    weights: list[np.ndarray | None] = [None]
    for position, axis, stride in zip(positions, axes, _element_strides(labels.shape), strict=True):
        chosen = [(index[position] * stride, weight[position]) for index, weight in axis.around]
        offsets = [offset + step for offset in offsets for step, _ in chosen]
        weights = [factor if weight is None else weight * factor for weight in weights for _, factor in chosen]
    return labels.reshape(-1)[np.stack(offsets)], np.stack(weights)


def _element_strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _share(around: np.ndarray, weights: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Sums the weights of the old voxels with `label`; clipped to 1, as the resized indicator image is."""
    total = np.zeros(around.shape[1])
    for neighbour, weight in zip(around, weights, strict=True):  # order matters: other orders round differently
        total += weight * (neighbour == label)
    return np.minimum(total, 1.0, out=total)
