"""Share of the reference that is found."""

from __future__ import annotations

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import COUNTS, EmptyMasks, Metric, register_metric


@register_metric("Sens")
class Sensitivity(Metric):
    """Sensitivity, or recall."""

    meaning = "sensitivity"
    definition = "voxels that both masks share, divided by those of the reference."
    higher_is_better = True
    empty_masks = EmptyMasks(missed=0.0)  # without a reference voxel there is nothing to find
    reads = (COUNTS,)

    def compute(self, pair: MaskPair) -> float:
        counts = pair.counts
        return counts.true_positive / (counts.true_positive + counts.false_negative)
