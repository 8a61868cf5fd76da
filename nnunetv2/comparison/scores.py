"""Scores of every run, case and class, in arrays of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Run:
    """One trained model (all folds of one method with one seed), or a folder of predictions made elsewhere."""

    method: str
    """name of the method; runs that differ only in their seed share it"""
    folder: Path
    """model folder (with plans.json and fold_*), or folder of the predictions"""
    predictions: Mapping[str, Path]
    """segmentation per case identifier"""
    fold_of: Mapping[str, str]
    """fold that validated each case; empty for a folder of predictions"""
    seed: int | None = None
    """None if not set or not recorded"""
    number: int = 0
    """index among the runs of the method"""

    @property
    def is_model(self) -> bool:
        """Whether the folder holds a trained model."""
        return bool(self.fold_of)


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of R runs on N cases and K classes; all arrays are float64 or int64.

    A score is NaN where the case does not count for the class. The reference alone decides this, so the NaNs of a
    metric are the same in all runs.
    """

    runs: tuple[Run, ...]
    cases: tuple[str, ...]
    """identifiers, sorted"""
    classes: tuple[str, ...]
    """foreground labels or regions by their names in dataset.json"""
    values: Mapping[str, np.ndarray]
    """(R, N, K) per metric"""
    num_reference: np.ndarray
    """(N, K) voxels of the class in the reference"""
    num_predicted: np.ndarray
    """(R, N, K) voxels of the class in the prediction"""
    voxel_volume: np.ndarray
    """(N,) in mm^3, or mm^2 for 2D images"""
    num_dimensions: int
    """2 or 3"""
    num_worst_distances: Mapping[str, np.ndarray]
    """(R, K) per distance: cases without a predicted surface, scored with the image diagonal"""

    @property
    def volume_unit(self) -> str:
        """Unit of class volumes."""
        return "mm²" if self.num_dimensions == 2 else "mm³"

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Method names in the order of the runs."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    def runs_of(self, method: str) -> list[int]:
        """Indices of the runs of a method."""
        return [position for position, run in enumerate(self.runs) if run.method == method]

    def case_scores(self, metric: str, class_name: str | None = None) -> np.ndarray:
        """(R, N) scores of a class, or for None the means over the classes that count; NaN where none counts."""
        values = self.values[metric]
        if class_name is not None:
            return values[:, :, self.classes.index(class_name)]
        counts = (~np.isnan(values)).sum(axis=2)
        with np.errstate(invalid="ignore"):
            return np.nansum(values, axis=2) / counts

    def scores_of(self, method: str, metric: str, class_name: str | None = None) -> np.ndarray:
        """(S, N) scores of a method's S runs on the cases that count; see `case_scores`."""
        scores = self.case_scores(metric, class_name)
        return scores[self.runs_of(method)][:, ~np.isnan(scores[0])]
