"""Which cases deserve a look: scored low by all methods, or very differently by some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from nnunetv2.comparison.report.formatting import score, with_unit
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
    """of the shown run of each method, as text; with the mean where the method has several trainings"""


def shown_runs(table: ScoreTable) -> list[Run]:
    """The first run of each method."""
    return [table.runs[table.runs_of(method)[0]] for method in table.methods]


def worst_cases(comparison: Comparison, most: int = MOST_CASES) -> list[ChosenCase]:
    """Cases with the lowest score, mean over the methods, and cases in which the methods disagree most, by turns.

    The score is the primary one, mean over the classes and over the trainings of a method. Ties go by name.
    """
    metric, table = comparison.settings.primary, comparison.scores
    scores = table.case_scores(metric.name)
    trainings = {method: distinct_runs(table, method) for method in table.methods}
    by_method = np.stack([scores[positions].mean(axis=0) for positions in trainings.values()])
    is_repeated = any(len(positions) > 1 for positions in trainings.values())
    over = "methods and trainings" if is_repeated else "the methods"
    each = ", each the mean over its trainings" if is_repeated else ""
    counts = np.flatnonzero(~np.isnan(by_method).any(axis=0))
    means, ranges = by_method.mean(axis=0), np.ptp(by_method, axis=0)
    badness = -means if metric.higher_is_better else means
    lowest = [
        (number, f"{metric.name} {with_unit(means[number], metric.name)}, mean over {over}: among the worst")
        for number in sorted(counts, key=lambda number: -badness[number])
    ]
    apart = [
        (number, f"Methods {with_unit(ranges[number], metric.name)} apart in {metric.name}{each}: among the furthest")
        for number in sorted(counts, key=lambda number: -ranges[number])
        if ranges[number] > 0
    ]
    chosen: dict[int, str] = {}
    for entry in chain.from_iterable(zip_longest(lowest, apart)):
        if entry is not None and len(chosen) < most:
            chosen.setdefault(int(entry[0]), entry[1])
    return [
        ChosenCase(table.cases[number], reason, _scores_in_words(comparison, scores[:, number], trainings))
        for number, reason in chosen.items()
    ]


def _scores_in_words(
    comparison: Comparison, scores: np.ndarray, trainings: Mapping[str, Sequence[int]]
) -> dict[str, str]:
    """Of each method: the score of the run that is shown, and that of the method where it has several trainings.

    Args:
        scores: (R,) of the runs in one case.
        trainings: positions of the distinct runs of each method.
    """
    metric = comparison.settings.metrics[0]
    texts = {}
    for run in shown_runs(comparison.scores):
        positions = trainings[run.method]
        text = f"{metric} {with_unit(float(scores[positions[0]]), metric)}"
        if len(positions) > 1:
            which = f"run {run.number + 1}" if run.seed is None else f"seed {run.seed}"
            text += f", {which}; mean {score(float(scores[positions].mean()), metric)}"
        texts[run.method] = text
    return texts
