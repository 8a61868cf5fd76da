"""Which cases deserve a look: scored low by all methods, or very differently by some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from nnunetv2.comparison.report.number_text import with_unit
from nnunetv2.comparison.results import Comparison
from nnunetv2.comparison.scores import Run, ScoreTable
from nnunetv2.comparison.statistics.trainings import distinct_runs

MOST_CASES = 10


@dataclass(frozen=True)
class ChosenCase:
    """A case to show, and why."""

    case: str
    reason: str
    scores: Mapping[str, str]
    """of the shown run of each method, as text"""


def shown_runs(table: ScoreTable) -> list[Run]:
    """The first run of each method."""
    return [table.runs[table.runs_of(method)[0]] for method in table.methods]


def worst_cases(comparison: Comparison, most: int = MOST_CASES) -> list[ChosenCase]:
    """Cases with the lowest score, mean over the methods, and cases in which the methods disagree most, by turns.

    The score is the primary one, mean over the classes and over the runs of a method. Ties go by name.
    """
    metric, table = comparison.settings.primary, comparison.scores
    scores = table.case_scores(metric.name)
    by_method = np.stack([scores[distinct_runs(table, method)].mean(axis=0) for method in table.methods])
    counts = np.flatnonzero(~np.isnan(by_method).any(axis=0))
    means, ranges = by_method.mean(axis=0), np.ptp(by_method, axis=0)
    badness = -means if metric.higher_is_better else means
    lowest = [
        (number, f"{metric.name} {with_unit(means[number], metric.name)}, mean over the methods: among the worst")
        for number in sorted(counts, key=lambda number: -badness[number])
    ]
    apart = [
        (number, f"Methods {with_unit(ranges[number], metric.name)} apart in {metric.name}: among the furthest")
        for number in sorted(counts, key=lambda number: -ranges[number])
        if ranges[number] > 0
    ]
    chosen: dict[int, str] = {}
    for entry in chain.from_iterable(zip_longest(lowest, apart)):
        if entry is not None and len(chosen) < most:
            chosen.setdefault(int(entry[0]), entry[1])
    return [_chosen(comparison, scores, number, reason) for number, reason in chosen.items()]


def _chosen(comparison: Comparison, scores: np.ndarray, number: int, reason: str) -> ChosenCase:
    table, metric = comparison.scores, comparison.settings.metrics[0]
    shown = {method: float(scores[table.runs_of(method)[0], number]) for method in table.methods}
    texts = {method: f"{metric} {with_unit(value, metric)}" for method, value in shown.items()}
    return ChosenCase(table.cases[number], reason, texts)
