"""Position of a training patch in a case: random, or centred on a voxel of a requested class.

All draws come from numpy's global generator in upstream's order, so that seeded runs of both see the same patches.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2.errors import DataError

_log = logging.getLogger(__name__)

Label = int | tuple[int, ...]
ClassLocations = Mapping[Label, Sequence[Sequence[int]]]


def position_bounds(
    data_shape: Sequence[int], patch_size: Sequence[int], padding: Sequence[int]
) -> list[tuple[int, int]]:
    """Computes the lowest and highest start voxel (inclusive) of a patch per axis; below 0 is outside the case.

    Args:
        data_shape: spatial shape of the case.
        patch_size: spatial shape of the patch.
        padding: voxels by which a patch may extend beyond the case, both ends together. An axis shorter than the patch
            gets as many as the patch needs.
    """
    bounds = []
    for size, patch, allowed in zip(data_shape, patch_size, padding, strict=True):
        margin = (max(int(allowed), int(patch) - int(size)) + 1) // 2
        bounds.append((-margin, int(size) + margin - int(patch)))
    return bounds


def random_position(bounds: Sequence[tuple[int, int]]) -> list[int]:
    """Draws a start voxel, uniformly within the bounds of each axis."""
    return [int(np.random.randint(lowest, highest + 1)) for lowest, highest in bounds]


def position_around(voxel: Sequence[int], bounds: Sequence[tuple[int, int]], patch_size: Sequence[int]) -> list[int]:
    """Start voxel of the patch centred on `voxel`, clipped to the lower bounds."""
    return [
        max(lowest, int(coordinate) - int(patch) // 2)
        for coordinate, (lowest, _), patch in zip(voxel, bounds, patch_size, strict=True)
    ]


def random_voxel(locations: Sequence[Sequence[int]]) -> list[int]:
    """Draws one of the stored (channel, *spatial) locations and drops its channel."""
    return [int(coordinate) for coordinate in locations[np.random.choice(len(locations))][1:]]


def choose_class(
    class_locations: ClassLocations, annotated_voxels: tuple[int, ...], wanted: Label | None = None
) -> Label | None:
    """Selects a class (or region) that occurs in the case: `wanted` if present, else a random one, `None` if none.

    Args:
        class_locations: voxel locations per class.
        annotated_voxels: key of the locations of *all* annotated voxels, used only if no class occurs.
        wanted: preferred class.

    Raises:
        DataError: `wanted` is unknown to the case.
    """
    if wanted is not None and wanted not in class_locations:
        raise DataError(f"class {wanted} has no stored locations; the case knows {sorted(map(str, class_locations))}")
    present = [label for label, locations in class_locations.items() if len(locations) > 0]
    if len(present) > 1:
        present = [label for label in present if label != annotated_voxels]
    if not present:
        return None
    if wanted in present:
        return wanted
    return present[np.random.choice(len(present))]


def annotated_class(class_locations: ClassLocations, annotated_voxels: tuple[int, ...]) -> Label | None:
    """Returns the key of all annotated voxels of a sparsely annotated case; `None`, with a warning, if it has none.

    Raises:
        DataError: the case was preprocessed without the ignore label.
    """
    if annotated_voxels not in class_locations:
        raise DataError(
            "the preprocessed case stores no locations of annotated voxels although the dataset has an ignore label: "
            "preprocess the dataset again"
        )
    if len(class_locations[annotated_voxels]) == 0:
        _log.warning("a case without any annotated voxel was drawn; a random patch of it is used")
        return None
    return annotated_voxels
