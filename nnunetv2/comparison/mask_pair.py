"""The two masks of a class that a metric compares, and what several metrics read of them, computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nnunetv2.comparison.surface_distances import SurfaceDistances, surface_distances


class Counts(NamedTuple):
    """Voxels of the whole image, without those that the reference ignores."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int


@dataclass(frozen=True, eq=False)
class MaskPair:
    """One class in the prediction and in the reference of one image."""

    cut_masks: Callable[[], tuple[np.ndarray, np.ndarray]]
    """makes `prediction` and `reference`, which metrics of the counts alone do not need"""
    counts: Counts
    spacing: tuple[float, ...]
    """mm between voxels along each axis of the masks"""
    tolerance: float
    """`--nsd_tolerance`, in mm"""

    @classmethod
    def of_masks(
        cls, prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], tolerance: float = 1.0
    ) -> MaskPair:
        """A pair of boolean arrays of one shape with two or three axes."""
        shared = int((prediction & reference).sum())
        predicted, expected = int(prediction.sum()), int(reference.sum())
        rest = prediction.size - predicted - expected + shared
        counts = Counts(shared, predicted - shared, expected - shared, rest)
        return cls(lambda: (prediction, reference), counts, spacing, tolerance)

    @property
    def prediction(self) -> np.ndarray:
        """Boolean, two axes (Y, X) or three (Z, Y, X), cropped to a box around both masks; ignored voxels are False."""
        return self._masks[0]

    @property
    def reference(self) -> np.ndarray:
        """Boolean, in the same box as `prediction`."""
        return self._masks[1]

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Distances in mm between the edges of the masks; neither may be empty."""
        return surface_distances(self.prediction, self.reference, self.spacing)

    @cached_property
    def _masks(self) -> tuple[np.ndarray, np.ndarray]:
        return self.cut_masks()
