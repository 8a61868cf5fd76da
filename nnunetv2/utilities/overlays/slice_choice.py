"""Choose the slice of an image that shows most of its labels."""

from __future__ import annotations

import numpy as np


def select_slice_to_plot(image: np.ndarray, segmentation: np.ndarray) -> int:
    """Returns the index along the first axis of the slice with the largest foreground, whatever its labels.

    Args:
        image: (Z, Y, X); it has no influence, but may have in functions that take the place of this one.
        segmentation: (Z, Y, X) labels; everything but 0 is foreground.
    """
    return int(np.count_nonzero(segmentation, axis=(1, 2)).argmax())


def select_slice_to_plot2(image: np.ndarray, segmentation: np.ndarray) -> int:
    """Returns the index of the slice that holds, as a mean over the labels, the largest share of a label's voxels.

    Small structures count as much as large ones. Without foreground it is the first slice.

    Args:
        image: (Z, Y, X); it has no influence, but may have in functions that take the place of this one.
        segmentation: (Z, Y, X) labels; those above 0 are foreground.
    """
    labels = np.unique(segmentation)
    labels = labels[labels > 0]
    if not len(labels):
        return 0
    counts = np.stack([_voxels_per_label(plane, labels) for plane in segmentation])
    return int((counts / counts.sum(axis=0)).mean(axis=1).argmax())


def _voxels_per_label(plane: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(labels, plane[plane > 0]), minlength=len(labels))
