"""Overlap of two masks, relative to their sizes."""

from __future__ import annotations

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import AS_OVERLAP, COUNTS, Metric, register_metric


@register_metric("Dice")
class Dice(Metric):
    """Dice similarity coefficient."""

    meaning = "Dice similarity coefficient"
    definition = "twice the voxels that both masks share, divided by the voxels of both."
    higher_is_better = True
    empty_masks = AS_OVERLAP
    reads = (COUNTS,)

    def compute(self, pair: MaskPair) -> float:
        counts = pair.counts
        shared = 2 * counts.true_positive
        return shared / (shared + counts.false_positive + counts.false_negative)
