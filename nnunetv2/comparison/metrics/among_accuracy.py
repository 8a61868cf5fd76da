"""How often a voxel of several classes, such as artery and vein, gets the right one of them (`--among`)."""

from __future__ import annotations

import abc

from nnunetv2.comparison.among_classes import AmongClasses
from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import AMONG, COMPUTED, EmptyMasks, Metric, register_metric

_VOXELS = "voxels whose reference is exactly one of the classes chosen with --among"
_FOUND = f"{_VOXELS} and whose prediction is any of them"
_RIGHT = "predicted as the class of the reference and as no other one"


class _Among(Metric):
    """Base of the metrics that read `pair.among`; classes that are not among the chosen ones do not count."""

    higher_is_better = True
    empty_masks = EmptyMasks(missed=COMPUTED)
    reads = (AMONG,)

    def is_defined(self, pair: MaskPair) -> bool:
        return pair.among is not None and pair.among.num_reference[pair.among.own] > 0

    def compute(self, pair: MaskPair) -> float:
        num_right, num_counted = self.counts(pair.among)
        return num_right / num_counted if num_counted else 0.0

    @abc.abstractmethod
    def counts(self, among: AmongClasses) -> tuple[int, int]:
        """Voxels that are right, and all that count."""


@register_metric("AccFound")
class AccFound(_Among):
    """Accuracy among classes on the voxels that are found."""

    meaning = "accuracy among classes on found voxels"
    definition = f"share of the {_FOUND} that is {_RIGHT}; one number for these classes together, 0 if none is found."

    def counts(self, among: AmongClasses) -> tuple[int, int]:
        return sum(among.num_right), sum(among.num_found)


@register_metric("AccAll")
class AccAll(_Among):
    """Accuracy among classes on all of their voxels; what is not found is wrong."""

    meaning = "accuracy among classes on all of their voxels"
    definition = f"share of the {_VOXELS} that is {_RIGHT}; one number for these classes together."

    def counts(self, among: AmongClasses) -> tuple[int, int]:
        return sum(among.num_right), sum(among.num_reference)


@register_metric("SensFound")
class SensFound(_Among):
    """Sensitivity of a class among classes on the voxels that are found."""

    meaning = "sensitivity among classes on found voxels"
    definition = f"share of the {_FOUND} that is {_RIGHT}, for each class; 0 if none of the class is found."

    def counts(self, among: AmongClasses) -> tuple[int, int]:
        return among.num_right[among.own], among.num_found[among.own]


@register_metric("SensAll")
class SensAll(_Among):
    """Sensitivity of a class among classes on all of its voxels; what is not found is wrong."""

    meaning = "sensitivity among classes on all voxels"
    definition = f"share of the {_VOXELS} that is {_RIGHT}, for each class."

    def counts(self, among: AmongClasses) -> tuple[int, int]:
        return among.num_right[among.own], among.num_reference[among.own]
