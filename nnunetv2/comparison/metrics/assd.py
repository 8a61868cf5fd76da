"""Mean distance between two surfaces."""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import AS_DISTANCE, DISTANCES, Metric, register_metric


@register_metric("ASSD")
class ASSD(Metric):
    """Average symmetric surface distance.

    MONAI's `compute_average_surface_distance(symmetric=True)`: every edge voxel of both masks has the same weight.

    Source: Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", 2015.
    """

    meaning = "average symmetric surface distance"
    definition = "mean of the distances from the edge voxels of each mask to those of the other, both together."
    higher_is_better = False
    empty_masks = AS_DISTANCE
    unit = "mm"
    reads = (DISTANCES,)

    def compute(self, pair: MaskPair) -> float:
        return float(np.mean(pair.distances.both, dtype=np.float64))
