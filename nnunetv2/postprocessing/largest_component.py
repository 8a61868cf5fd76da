"""The largest connected component of a mask."""

from __future__ import annotations

import numpy as np


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Returns the voxels of the largest component of a boolean mask of any number of axes.

    Voxels that touch at a face, an edge or a corner are connected. Of several components of one size, all stay.
    """
    from scipy import ndimage

    kept = np.zeros(mask.shape, dtype=bool)
    box = _bounding_box(mask)
    if box is None:
        return kept
    components, num_components = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
    if num_components == 1:
        return mask.copy()
    sizes = np.bincount(components.ravel())
    sizes[0] = 0  # what lies outside the mask
    kept[box] = (sizes == sizes.max())[components]
    return kept


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (positions,) = np.nonzero(mask.any(axis=others))
        if not positions.size:
            return None
        box.append(slice(positions[0], positions[-1] + 1))
    return tuple(box)
