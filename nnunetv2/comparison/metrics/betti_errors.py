"""Topological errors: pieces and holes that the reference does not have, or has more of."""

from __future__ import annotations

from nnunetv2.comparison.betti_numbers import num_holes, num_pieces
from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import COMPUTED, EmptyMasks, Metric, register_metric


@register_metric("Betti0")
class Betti0(Metric):
    """Error of the number of pieces."""

    meaning = "error of Betti number 0"
    definition = (
        "difference of the numbers of connected components, counted over the whole image with 8 neighbours in 2D and "
        "26 in 3D. Papers also average it over random patches, which gives smaller numbers."
    )
    higher_is_better = False
    empty_masks = EmptyMasks(missed=COMPUTED, absent=COMPUTED)
    unit = "pieces"
    digits = 1

    def compute(self, pair: MaskPair) -> float:
        return float(abs(num_pieces(pair.prediction) - num_pieces(pair.reference)))


@register_metric("Betti1")
class Betti1(Metric):
    """Error of the number of holes."""

    meaning = "error of Betti number 1"
    definition = (
        "difference of the numbers of holes (in 3D: tunnels), counted over the whole image; the background has 4 "
        "neighbours in 2D and 6 in 3D. Papers also average it over random patches, which gives smaller numbers."
    )
    higher_is_better = False
    empty_masks = EmptyMasks(missed=COMPUTED, absent=COMPUTED)
    unit = "holes"
    digits = 1

    def compute(self, pair: MaskPair) -> float:
        return float(abs(num_holes(pair.prediction) - num_holes(pair.reference)))
