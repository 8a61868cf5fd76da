"""The scores of a method as the statistics see them: distinct trainings on the cases that count."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnunetv2.comparison.scores import ScoreTable

# Scores are quotients of whole numbers. Further decimals depend on the order in which numbers are added, and would make
# a difference out of none.
DECIMALS = 12


@dataclass(frozen=True, eq=False)
class MethodScores:
    """What one method reaches in one metric and class."""

    method: str
    runs: np.ndarray
    """(S, N): trainings by cases"""
    num_repeated: int
    """runs left out because another has the very same scores"""

    @cached_property
    def case_means(self) -> np.ndarray:
        """(N,) means over the trainings."""
        return np.round(self.runs.mean(axis=0), DECIMALS)

    @property
    def num_cases(self) -> int:
        return self.runs.shape[1]


def method_scores(scores: ScoreTable, metric: str, class_name: str | None) -> list[MethodScores]:
    """Every method in one metric and class, in the order of `scores.methods`.

    Cases are ordered by their identifiers, trainings by their scores, so that nothing depends on the order in which
    runs and cases are given.
    """
    by_run = scores.case_scores(metric, class_name)
    counts = np.flatnonzero(~np.isnan(by_run[0]))
    order = np.array(sorted(counts, key=lambda position: scores.cases[position]), dtype=int)
    result = []
    for method in scores.methods:
        distinct = distinct_runs(scores, method)
        rows = sorted(by_run[distinct][:, order].tolist())
        runs = np.array(rows, dtype=np.float64).reshape(len(distinct), len(order))
        result.append(MethodScores(method, runs, len(scores.runs_of(method)) - len(distinct)))
    return result


def distinct_runs(scores: ScoreTable, method: str) -> list[int]:
    """Positions of the trainings of a method.

    Runs that agree in every score and in the size of every prediction are copies of one training. Counted as several
    they would feign that training again gives the same model.
    """
    first_of: dict[bytes, int] = {}
    for position in scores.runs_of(method):
        everything = [
            scores.num_predicted[position],
            *(scores.values[name][position] for name in sorted(scores.values)),
        ]
        first_of.setdefault(b"".join(np.ascontiguousarray(part).tobytes() for part in everything), position)
    return list(first_of.values())
