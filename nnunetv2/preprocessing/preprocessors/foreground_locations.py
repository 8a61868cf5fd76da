"""Locations of each class in a case, so that training can centre patches on foreground without a search."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Label = int | tuple[int, ...]


def sample_foreground_locations(
    seg: np.ndarray,
    classes_or_regions: Sequence[int | Sequence[int]],
    seed: int = 1234,
    min_num_samples: int = 10000,
    min_percent_coverage: float = 0.01,
) -> dict[Label, np.ndarray | list]:
    """Draws voxels of each class without replacement; reproducible by the seed.

    Args:
        seg: label map, usually `(1, X, Y, Z)`.
        classes_or_regions: labels, or groups of labels that form a region.
        seed: seed of the generator, which is shared by all classes in the given order.
        min_num_samples: voxels to draw per class; all of them if there are fewer.
        min_percent_coverage: draw at least this fraction of a class (0.01 is one percent).

    Returns:
        For each label, or tuple of labels, an int64 array `(N, seg.ndim)` of coordinates; an empty list for classes
        that do not occur.
    """
    random = np.random.RandomState(seed)
    groups = [tuple(map(int, c)) if isinstance(c, (tuple, list)) else int(c) for c in classes_or_regions]
    voxels = _voxels_by_label(seg, {label for group in groups for label in _labels_of(group)})
    locations: dict[Label, np.ndarray | list] = {}
    for group in groups:
        parts = [voxels[label] for label in _labels_of(group) if label in voxels]
        if not parts:
            locations[group] = []
            continue
        total = sum(part.size for part in parts)
        number = max(min(min_num_samples, total), math.ceil(total * min_percent_coverage))
        drawn = random.choice(total, number, replace=False)
        flat = np.concatenate(parts)[drawn]
        locations[group] = np.stack(np.unravel_index(flat, seg.shape), axis=1)
    return locations


def _labels_of(group: Label) -> tuple[int, ...]:
    return group if isinstance(group, tuple) else (group,)


def _voxels_by_label(seg: np.ndarray, labels: set[int]) -> dict[int, np.ndarray]:
    """Returns the ascending flat indices of the voxels of each occurring label."""
    flat = np.ascontiguousarray(seg).reshape(-1)
    candidates = np.flatnonzero(np.isin(flat, list(labels)))
    values = flat[candidates].astype(np.int16)
    order = np.argsort(values, kind="stable")
    values, candidates = values[order], candidates[order]
    present, starts = np.unique(values, return_index=True)
    return {int(label): part for label, part in zip(present, np.split(candidates, starts)[1:], strict=True)}
