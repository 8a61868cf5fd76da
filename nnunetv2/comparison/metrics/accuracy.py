"""Share of the voxels on which both masks agree."""

from __future__ import annotations

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import COMPUTED, COUNTS, EmptyMasks, Metric, register_metric


@register_metric("Acc")
class Accuracy(Metric):
    """Voxel accuracy; dominated by the background where a class is small."""

    meaning = "accuracy"
    definition = (
        "voxels on which both masks agree, divided by all, over the whole image or the field of view; 1 if every voxel "
        "is ignored."
    )
    higher_is_better = True
    empty_masks = EmptyMasks(missed=COMPUTED, absent=COMPUTED)
    reads = (COUNTS,)

    def compute(self, pair: MaskPair) -> float:
        counts = pair.counts
        return (counts.true_positive + counts.true_negative) / sum(counts) if sum(counts) else 1.0
