"""Centrelines of two masks, by scikit-image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Skeletons:
    """Skeletons of a prediction and a reference; boolean, in the shape of the masks."""

    prediction: np.ndarray
    reference: np.ndarray


def skeletons(prediction: np.ndarray, reference: np.ndarray) -> Skeletons:
    """Thin both masks, boolean 2D or 3D, to lines of one voxel.

    `skimage.morphology.skeletonize`: the algorithm of Zhang in 2D, that of Lee in 3D. What lies beyond the border
    counts as background, so that cropping masks to a box does not change their skeletons. Lee's deletes some of the
    smallest blocks, such as 2 x 2 x 2 voxels; a mask of which nothing would be left is its own skeleton.
    """
    return Skeletons(_skeleton(prediction), _skeleton(reference))


def _skeleton(mask: np.ndarray) -> np.ndarray:
    from skimage.morphology import skeletonize

    thinned = skeletonize(mask).astype(bool)
    return thinned if thinned.any() else mask


def calibres(mask: np.ndarray, skeleton: np.ndarray) -> np.ndarray:
    """Width of a mask at each voxel of its skeleton, in voxels: twice the distance to the background, minus one.

    A line of one voxel has calibre 1. Spacing is not taken into account.

    Args:
        mask: boolean, 2D or 3D; what lies beyond its border counts as background.
        skeleton: of the mask.
    """
    from scipy.ndimage import distance_transform_edt

    inner = tuple(slice(1, -1) for _ in range(mask.ndim))
    return 2 * distance_transform_edt(np.pad(mask, 1))[inner][skeleton] - 1
