"""Share of the background that stays free."""

from __future__ import annotations

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import COMPUTED, COUNTS, EmptyMasks, Metric, register_metric


@register_metric("Spec")
class Specificity(Metric):
    """Specificity; depends on how much background the image or the field of view has."""

    meaning = "specificity"
    definition = (
        "voxels outside of both masks, divided by those outside of the reference, over the whole image or the field "
        "of view; 1 if the reference leaves no voxel out."
    )
    higher_is_better = True
    empty_masks = EmptyMasks(missed=COMPUTED, absent=COMPUTED)
    reads = (COUNTS,)

    def compute(self, pair: MaskPair) -> float:
        counts = pair.counts
        num_background = counts.true_negative + counts.false_positive
        return counts.true_negative / num_background if num_background else 1.0
