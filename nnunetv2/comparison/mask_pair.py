"""The pair of masks that a metric compares, with cached intermediate results that several metrics share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nnunetv2.comparison.among_classes import AmongClasses
from nnunetv2.comparison.objects import MatchedObjects, matched_objects
from nnunetv2.comparison.skeletons import Skeletons, calibres, skeletons
from nnunetv2.comparison.surface_distances import SurfaceDistances, surface_distances


class Counts(NamedTuple):
    """Voxel counts over the whole image, ignored voxels excluded."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int


@dataclass(frozen=True, eq=False)
class MaskPair:
    """Prediction and reference masks of one class in one image."""

    cut_masks: Callable[[], tuple[np.ndarray, np.ndarray]]
    """creates `prediction` and `reference` on demand; count-based metrics need neither"""
    counts: Counts
    spacing: tuple[float, ...]
    """voxel spacing along each axis of the masks, in mm"""
    tolerance: float
    """`--nsd_tolerance`, in mm"""
    among: AmongClasses | None = None
    """counts over the voxels of the classes of `--among`; None for a class that is not one of them"""

    @classmethod
    def of_masks(
        cls,
        prediction: np.ndarray,
        reference: np.ndarray,
        spacing: tuple[float, ...],
        tolerance: float = 1.0,
        among: AmongClasses | None = None,
    ) -> MaskPair:
        """Build a pair from two boolean arrays of the same shape, 2D or 3D."""
        shared = int((prediction & reference).sum())
        predicted, expected = int(prediction.sum()), int(reference.sum())
        rest = prediction.size - predicted - expected + shared
        counts = Counts(shared, predicted - shared, expected - shared, rest)
        return cls(lambda: (prediction, reference), counts, spacing, tolerance, among)

    @property
    def prediction(self) -> np.ndarray:
        """Boolean, (Y, X) or (Z, Y, X), cropped to a box around both masks; ignored voxels are False."""
        return self._masks[0]

    @property
    def reference(self) -> np.ndarray:
        """Boolean, in the same box as `prediction`."""
        return self._masks[1]

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Distances in mm between the surfaces of the masks; neither mask may be empty."""
        return surface_distances(self.prediction, self.reference, self.spacing)

    @cached_property
    def skeletons(self) -> Skeletons:
        """Centrelines of both masks, in the same box as these."""
        return skeletons(self.prediction, self.reference)

    @cached_property
    def calibres(self) -> np.ndarray:
        """Width of the reference at each voxel of its skeleton, in voxels; see `calibres`."""
        return calibres(self.reference, self.skeletons.reference)

    @cached_property
    def objects(self) -> MatchedObjects:
        """Connected components of both masks, matched one to one."""
        return matched_objects(self.prediction, self.reference)

    @cached_property
    def _masks(self) -> tuple[np.ndarray, np.ndarray]:
        return self.cut_masks()
