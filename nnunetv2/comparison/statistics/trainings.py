"""Scores of a method prepared for the statistics: distinct trainings on the cases that count."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnunetv2.comparison.scores import ScoreTable

# Scores are quotients of integers. Further decimals depend on the order of summation and would turn equal scores into
# different ones.
DECIMALS = 12


@dataclass(frozen=True, eq=False)
class MethodScores:
    """Scores of one method in one metric and class."""

    method: str
    runs: np.ndarray
    """(S, N) scores of trainings by cases"""
    num_repeated: int
    """runs dropped because their scores duplicate another run"""

    @cached_property
    def case_means(self) -> np.ndarray:
        """(N,) means over the trainings."""
        return np.round(self.runs.mean(axis=0), DECIMALS)

    @property
    def num_cases(self) -> int:
        return self.runs.shape[1]


def method_scores(scores: ScoreTable, metric: str, class_name: str | None) -> list[MethodScores]:
    """Collect the scores of every method that has the class, in one metric, in the order of `scores.methods`.

    Cases are sorted by identifier and trainings by score, so that results do not depend on the given order of runs
    and cases.
    """
    by_run = scores.case_scores(metric, class_name)
    methods = scores.methods_of(class_name)
    counts = np.flatnonzero(~np.isnan(by_run[scores.runs_of(methods[0])[0]]))
    order = np.array(sorted(counts, key=lambda position: scores.cases[position]), dtype=int)
    result = []
    for method in methods:
        distinct = distinct_runs(scores, method)
        rows = sorted(by_run[distinct][:, order].tolist())
        runs = np.array(rows, dtype=np.float64).reshape(len(distinct), len(order))
        result.append(MethodScores(method, runs, len(scores.runs_of(method)) - len(distinct)))
    return result


def distinct_runs(scores: ScoreTable, method: str) -> list[int]:
    """Indices of the distinct trainings of a method.

    Runs that agree in all scores and predicted sizes are copies of one training. Counting them separately would
    suggest that retraining reproduces the same model.
    """
    first_of: dict[bytes, int] = {}
    for position in scores.runs_of(method):
        everything = [
            scores.num_predicted[position],
            *(scores.values[name][position] for name in sorted(scores.values)),
        ]
        first_of.setdefault(b"".join(np.ascontiguousarray(part).tobytes() for part in everything), position)
    return list(first_of.values())
