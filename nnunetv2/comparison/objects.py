"""Objects of two masks, matched one to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LEAST_IOU = 0.5  # above it, no object can match two others


@dataclass(frozen=True)
class MatchedObjects:
    """Connected components of a prediction and a reference, with 8 neighbours in 2D and 26 in 3D."""

    num_predicted: int
    num_reference: int
    ious: tuple[float, ...]
    """intersection over union of each matched pair, above 0.5"""


def matched_objects(prediction: np.ndarray, reference: np.ndarray) -> MatchedObjects:
    """Match the objects of two boolean masks (2D or 3D) whose intersection is more than half of their union.

    Source: Kirillov et al., "Panoptic segmentation", CVPR 2019, section 4.1: such matches are unique.
    """
    from scipy.ndimage import label

    structure = np.ones((3,) * prediction.ndim)
    predicted, num_predicted = label(prediction, structure)
    expected, num_reference = label(reference, structure)
    is_shared = prediction & reference
    joint = predicted[is_shared].astype(np.int64) * (num_reference + 1) + expected[is_shared]
    pairs, shared = np.unique(joint, return_counts=True)
    of_predicted, of_expected = np.divmod(pairs, num_reference + 1)
    sizes = [np.bincount(objects.ravel()) for objects in (predicted, expected)]
    ious = shared / (sizes[0][of_predicted] + sizes[1][of_expected] - shared)
    return MatchedObjects(num_predicted, num_reference, tuple(ious[ious > _LEAST_IOU].tolist()))
