"""Select the slice of an image that shows most of its labels."""

from __future__ import annotations

import numpy as np


def select_slice_to_plot(image: np.ndarray, segmentation: np.ndarray) -> int:
    """Index along the first axis of the slice with the largest foreground.

    Args:
        image: (Z, Y, X); unused, but replacements of this function may use it.
        segmentation: (Z, Y, X) labels; nonzero values are foreground.
    """
    return int(np.count_nonzero(segmentation, axis=(1, 2)).argmax())


def select_slice_to_plot2(image: np.ndarray, segmentation: np.ndarray) -> int:
    """Index of the slice with the largest share of each label's voxels, averaged over the labels.

    Small structures thus count as much as large ones. Without foreground, the first slice is returned.

    Args:
        image: (Z, Y, X); unused, but replacements of this function may use it.
        segmentation: (Z, Y, X) labels; positive values are foreground.
    """
    labels = np.unique(segmentation)
    labels = labels[labels > 0]
    if not len(labels):
        return 0
    counts = np.stack([_voxels_per_label(plane, labels) for plane in segmentation])
    return int((counts / counts.sum(axis=0)).mean(axis=1).argmax())


def _voxels_per_label(plane: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(labels, plane[plane > 0]), minlength=len(labels))
