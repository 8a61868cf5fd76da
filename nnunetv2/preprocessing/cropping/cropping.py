"""Crops images to their nonzero region, such as the brain in a skull-stripped scan."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nnunetv2.errors import UsageError

BoundingBox = list[list[int]]


def create_nonzero_mask(data: np.ndarray) -> np.ndarray:
    """Returns a mask of the voxels where any channel is nonzero, with enclosed holes filled.

    Args:
        data: `(C, X, Y, Z)` or `(C, X, Y)`.

    Returns:
        Boolean array of the spatial shape.
    """
    if data.ndim not in (3, 4):
        raise UsageError(f"Images are (channels, x, y, z) or (channels, x, y); got shape {data.shape}")
    mask = data[0] != 0
    for channel in data[1:]:
        mask |= channel != 0
    return _fill_holes(mask)


def crop_to_nonzero(
    data: np.ndarray, seg: np.ndarray | None = None, nonzero_label: int = -1
) -> tuple[np.ndarray, np.ndarray, BoundingBox]:
    """Crops an image and its labels to the bounding box of the nonzero region.

    Args:
        data: `(C, X, Y, Z)`.
        seg: labels `(1, X, Y, Z)`, if there are any.
        nonzero_label: marks background voxels outside the nonzero region, so that normalisation can exclude them.

    Returns:
        The cropped image (a view), the cropped labels (a copy, or an int8 map of 0 inside and `nonzero_label` outside
        where `seg` is None), and the box as `[[start, stop], ...]` per axis.
    """
    mask = create_nonzero_mask(data)
    bbox = _bounding_box(mask)
    inside = tuple(slice(start, stop) for start, stop in bbox)
    outside_mask = ~mask[inside][None]
    data = data[(slice(None), *inside)]
    if seg is None:
        return data, np.where(outside_mask, np.int8(nonzero_label), np.int8(0)), bbox
    # Predictions are unsigned integers, which cannot represent -1.
    seg = seg[(slice(None), *inside)].astype(np.promote_types(seg.dtype, np.int8))
    seg[(seg == 0) & outside_mask] = nonzero_label
    return data, seg, bbox


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fills holes: background that no path of face-adjacent voxels connects to the border of the array.

    Same result as `scipy.ndimage.binary_fill_holes`, which dilates voxel by voxel; this is one pass over the
    components.
    """
    if mask.all():
        return mask
    components, num_components = ndimage.label(~mask)
    reaches_border = np.zeros(num_components + 1, dtype=bool)
    for axis in range(mask.ndim):
        for side in (0, -1):
            reaches_border[np.take(components, side, axis=axis)] = True
    reaches_border[0] = False  # component 0 is the mask itself
    return ~reaches_border[components]


def _bounding_box(mask: np.ndarray) -> BoundingBox:
    """Returns `[[start, stop], ...]` of the True voxels; the whole array if there are none."""
    box = []
    for axis, length in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        box.append([int(occupied[0]), int(occupied[-1]) + 1] if occupied.size else [0, length])
    return box
