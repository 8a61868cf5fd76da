"""The scores that a comparison rests on: every run, case and class, in arrays of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Run:
    """One trained model: all folds of one method with one seed. Or a folder of predictions made elsewhere."""

    method: str
    """name of what was trained; runs that differ in their seed alone share it"""
    folder: Path
    """of the model (with plans.json and fold_*), or of the predictions"""
    predictions: Mapping[str, Path]
    """segmentation of each case, by its identifier"""
    fold_of: Mapping[str, str]
    """name of the fold that validated a case; empty for a folder of predictions"""
    seed: int | None = None
    """None where no seed was given or recorded"""
    number: int = 0
    """counts the runs of a method from 0"""

    @property
    def is_model(self) -> bool:
        """Whether it is a folder of a trained model."""
        return bool(self.fold_of)


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of R runs on N cases and K classes; all arrays are float64 or int64.

    A score is NaN where the case does not count for the class. That is decided by the reference alone, so a metric has
    the same NaNs in all runs.
    """

    runs: tuple[Run, ...]
    cases: tuple[str, ...]
    """identifiers, sorted"""
    classes: tuple[str, ...]
    """foreground labels or regions by their names in dataset.json"""
    values: Mapping[str, np.ndarray]
    """(R, N, K) for each metric"""
    num_reference: np.ndarray
    """(N, K) voxels of the class in the reference"""
    num_predicted: np.ndarray
    """(R, N, K) voxels of the class in the prediction"""
    voxel_volume: np.ndarray
    """(N,) mm^3, or mm^2 of an image with two dimensions"""
    num_dimensions: int
    """2 or 3, of the images"""
    num_worst_distances: Mapping[str, np.ndarray]
    """(R, K) for each distance: cases without a predicted surface, whose distance is the diagonal of the image"""

    @property
    def volume_unit(self) -> str:
        """In which the volume of a class is measured."""
        return "mm²" if self.num_dimensions == 2 else "mm³"

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Names in the order of the runs."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    def runs_of(self, method: str) -> list[int]:
        """Positions of the runs of a method."""
        return [position for position, run in enumerate(self.runs) if run.method == method]

    def case_scores(self, metric: str, class_name: str | None = None) -> np.ndarray:
        """(R, N) scores of one class, or None: means over the classes that count in a case; NaN where none does."""
        values = self.values[metric]
        if class_name is not None:
            return values[:, :, self.classes.index(class_name)]
        counts = (~np.isnan(values)).sum(axis=2)
        with np.errstate(invalid="ignore"):
            return np.nansum(values, axis=2) / counts

    def scores_of(self, method: str, metric: str, class_name: str | None = None) -> np.ndarray:
        """(S, N) scores of the S runs of a method on the cases that count; see `case_scores`."""
        scores = self.case_scores(metric, class_name)
        return scores[self.runs_of(method)][:, ~np.isnan(scores[0])]
