"""Distances between the surfaces of two masks, as defined by MONAI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distance of each edge voxel of two masks to the nearest edge voxel of the other, in mm, float32."""

    there: np.ndarray
    """from each edge voxel of the first mask"""
    back: np.ndarray
    """from each edge voxel of the second mask"""

    @cached_property
    def both(self) -> np.ndarray:
        return np.concatenate([self.there, self.back])


def surface_distances(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> SurfaceDistances:
    """Measure the Euclidean distances between the surfaces of two masks of one image.

    A surface consists of edge voxels: those with a face (in 2D: a side) on the background or on the image border,
    each represented by its centre. Distances are rounded to single precision. Cropping both masks to a common bounding
    box does not change the result.

    Args:
        first, second: boolean, same shape, 2D or 3D, not empty.
        spacing: mm between voxels along each axis.
    """
    from monai.metrics import get_mask_edges, get_surface_distance

    edges = get_mask_edges(first, second, crop=False)  # MONAI's own cropping takes longer than all the rest
    return SurfaceDistances(
        get_surface_distance(edges[0], edges[1], spacing=spacing),
        get_surface_distance(edges[1], edges[0], spacing=spacing),
    )
