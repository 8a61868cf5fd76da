"""Share of the reference's centreline that is found, by the width of the structure there."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import COMPUTED, SKELETONS, EmptyMasks, Metric, register_metric

_THIN, _THICK = 2.5, 4.5  # calibres, in pixels


class _CentrelineRecall(Metric):
    """Recall over the centreline voxels of a range of calibres; a case without such voxels does not count."""

    higher_is_better = True
    empty_masks = EmptyMasks(missed=COMPUTED)
    reads = (SKELETONS,)
    above: ClassVar[float]
    """calibre in pixels, excluded"""
    up_to: ClassVar[float]
    """calibre in pixels, included"""

    def is_defined(self, pair: MaskPair) -> bool:
        return bool(self._selected(pair).any())

    def compute(self, pair: MaskPair) -> float:
        is_found = pair.prediction[pair.skeletons.reference]
        return float(is_found[self._selected(pair)].mean())

    def _selected(self, pair: MaskPair) -> np.ndarray:
        return (pair.calibres > self.above) & (pair.calibres <= self.up_to)


def _definition(which: str) -> str:
    return (
        f"share of the centreline of the reference within the prediction, where the reference is {which} wide: twice "
        "the distance to the background, minus one. Cases without such a place do not count."
    )


@register_metric("RecallThin")
class RecallThin(_CentrelineRecall):
    """Centreline recall of thin structures."""

    meaning = "centreline recall of thin structures"
    definition = _definition(f"up to {_THIN} pixels")
    above, up_to = 0.0, _THIN


@register_metric("RecallMedium")
class RecallMedium(_CentrelineRecall):
    """Centreline recall of structures of medium width."""

    meaning = "centreline recall of structures of medium width"
    definition = _definition(f"more than {_THIN} and up to {_THICK} pixels")
    above, up_to = _THIN, _THICK


@register_metric("RecallThick")
class RecallThick(_CentrelineRecall):
    """Centreline recall of thick structures."""

    meaning = "centreline recall of thick structures"
    definition = _definition(f"more than {_THICK} pixels")
    above, up_to = _THICK, float("inf")
