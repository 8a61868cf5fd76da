"""Scores of every run, case and class, in arrays of one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    metric are the same in all runs whose method has the class.
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
    lacks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """classes that a method does not know, by method; their scores are NaN"""
    averaged: tuple[str, ...] | None = None
    """classes over which means are taken; None for all"""
    length_unit: str = "mm"
    """`px` if the files have no spacing"""
    has_fields: bool = False
    """whether voxels outside of fields of view were left out"""

    @property
    def volume_unit(self) -> str:
        """Unit of class volumes."""
        return f"{self.length_unit}²" if self.num_dimensions == 2 else f"{self.length_unit}³"

    @property
    def averaged_classes(self) -> tuple[str, ...]:
        """Classes over which means are taken."""
        return self.classes if self.averaged is None else self.averaged

    @cached_property
    def has_class(self) -> np.ndarray:
        """(R, K) whether the method of a run knows a class."""
        return np.array([[name not in self.lacks.get(run.method, ()) for name in self.classes] for run in self.runs])

    def of_methods(self, methods: Sequence[str]) -> ScoreTable:
        """The runs of some methods."""
        chosen = [position for position, run in enumerate(self.runs) if run.method in methods]
        return replace(
            self,
            runs=tuple(self.runs[position] for position in chosen),
            values={name: each[chosen] for name, each in self.values.items()},
            num_predicted=self.num_predicted[chosen],
            num_worst_distances={name: each[chosen] for name, each in self.num_worst_distances.items()},
            lacks={method: names for method, names in self.lacks.items() if method in methods},
        )

    def methods_of(self, class_name: str | None) -> tuple[str, ...]:
        """Methods that know a class, or for None all classes over which means are taken."""
        wanted = set(self.averaged_classes) if class_name is None else {class_name}
        return tuple(method for method in self.methods if not wanted & self.lacks.get(method, frozenset()))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Method names in the order of the runs."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    def runs_of(self, method: str) -> list[int]:
        """Indices of the runs of a method."""
        return [position for position, run in enumerate(self.runs) if run.method == method]

    def case_scores(self, metric: str, class_name: str | None = None) -> np.ndarray:
        """(R, N) scores of a class, or for None the means over the averaged classes that count; NaN where none counts.

        For None, runs of a method that lacks one of these classes are NaN: a mean over fewer classes is another number.
        """
        values = self.values[metric]
        if class_name is not None:
            return values[:, :, self.classes.index(class_name)]
        averaged = [self.classes.index(name) for name in self.averaged_classes]
        values = np.where(self.has_class[:, averaged].all(axis=1)[:, None, None], values[:, :, averaged], np.nan)
        counts = (~np.isnan(values)).sum(axis=2)
        with np.errstate(invalid="ignore"):
            return np.nansum(values, axis=2) / counts

    def scores_of(self, method: str, metric: str, class_name: str | None = None) -> np.ndarray:
        """(S, N) scores of a method's S runs on the cases that count; see `case_scores`."""
        scores = self.case_scores(metric, class_name)[self.runs_of(method)]
        return scores[:, ~np.isnan(scores[0])]
