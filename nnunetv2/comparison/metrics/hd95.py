"""Largest distance between two surfaces, robust to outliers."""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import AS_DISTANCE, DISTANCES, Metric, register_metric

_PERCENTILE = 95


@register_metric("HD95")
class HD95(Metric):
    """95th percentile of the Hausdorff distance.

    As MONAI's `compute_hausdorff_distance`: the percentile per direction, then the larger of the two.

    Source: Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", 2015.
    """

    meaning = "95th percentile of the Hausdorff distance"
    definition = (
        "the 95th percentile (interpolated linearly) of the distances from the edge voxels of one mask to those of "
        "the other; the larger of both directions."
    )
    higher_is_better = False
    empty_masks = AS_DISTANCE
    unit = "mm"
    reads = (DISTANCES,)

    def compute(self, pair: MaskPair) -> float:
        directions = (pair.distances.there, pair.distances.back)
        return float(max(np.percentile(one_way, _PERCENTILE) for one_way in directions))
