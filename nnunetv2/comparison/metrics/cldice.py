"""Agreement of two masks along their centrelines."""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import AS_OVERLAP, SKELETONS, Metric, register_metric


@register_metric("clDice")
class CentrelineDice(Metric):
    """Centreline Dice: harmonic mean of the shares of each skeleton that lie within the other mask.

    Source: Shit et al., "clDice - a novel topology-preserving loss function for tubular structure segmentation",
    CVPR 2021, equations 1 to 3.
    """

    meaning = "centreline Dice"
    definition = (
        "harmonic mean of the share of the predicted centreline within the reference and the share of the centreline "
        "of the reference within the prediction; 0 if both are 0."
    )
    higher_is_better = True
    empty_masks = AS_OVERLAP
    reads = (SKELETONS,)

    def compute(self, pair: MaskPair) -> float:
        skeletons = pair.skeletons
        precision = _share_within(skeletons.prediction, pair.reference)
        sensitivity = _share_within(skeletons.reference, pair.prediction)
        both = precision + sensitivity
        return 2 * precision * sensitivity / both if both else 0.0


def _share_within(skeleton: np.ndarray, mask: np.ndarray) -> float:
    """Share of a skeleton that lies in a mask; 0 for an empty skeleton."""
    return float(mask[skeleton].mean()) if skeleton.any() else 0.0
