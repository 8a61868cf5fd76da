"""Overlap of two masks, relative to their union."""

from __future__ import annotations

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import AS_OVERLAP, COUNTS, Metric, register_metric


@register_metric("IoU")
class IoU(Metric):
    """Intersection over union, the Jaccard index."""

    meaning = "intersection over union"
    definition = "voxels that both masks share, divided by those that any of them has."
    higher_is_better = True
    empty_masks = AS_OVERLAP
    reads = (COUNTS,)

    def compute(self, pair: MaskPair) -> float:
        counts = pair.counts
        return counts.true_positive / (counts.true_positive + counts.false_positive + counts.false_negative)
