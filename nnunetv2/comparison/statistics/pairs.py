"""Pairs of methods in every metric and class: differences, tests and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from nnunetv2.comparison.metric import METRICS, Metric
from nnunetv2.comparison.results import ALL_CLASSES, NOT_TESTABLE, MethodsTest, PairResult, TrainedModelsTest
from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics.bootstrap import bca_intervals, random_stream
from nnunetv2.comparison.statistics.method_test import methods_tests
from nnunetv2.comparison.statistics.trained_models import trained_models_tests
from nnunetv2.comparison.statistics.trainings import DECIMALS, MethodScores, method_scores
from nnunetv2.comparison.statistics.verdicts import non_inferiority
from nnunetv2.errors import UsageError


def pairs(scores: ScoreTable, settings: CompareSettings) -> tuple[PairResult, ...]:
    """Compare all pairs, nested as metric, class (mean over classes first), pair.

    The first method of a pair is the one that comes first in `scores.methods`; a baseline is always the second. For a
    class that counts in no case, all numbers are NaN and both verdicts `not testable`.

    Raises:
        UsageError: the baseline is not one of the methods.
    """
    if settings.baseline is not None and settings.baseline not in scores.methods:
        raise UsageError(f"The baseline {settings.baseline} is none of the methods: {', '.join(scores.methods)}")
    return tuple(
        result
        for metric in settings.metrics
        for class_name in (ALL_CLASSES, *scores.classes)
        for result in _family(scores, metric, class_name, settings)
    )


def differences_of(methods: Sequence[tuple[MethodScores, MethodScores]]) -> np.ndarray:
    """(N, P) differences first - second per case and pair."""
    return np.stack([np.round(first.case_means - second.case_means, DECIMALS) for first, second in methods], axis=1)


def _family(scores: ScoreTable, metric: str, class_name: str | None, settings: CompareSettings) -> list[PairResult]:
    methods = _paired(method_scores(scores, metric, class_name), settings.baseline)
    if not methods:
        return []
    differences = differences_of(methods)
    # One stream for all pairs: their intervals use the same samples, and none depends on which other pairs exist.
    stream = random_stream(settings.seed, metric, class_name)
    intervals = bca_intervals(differences, settings.alpha, settings.num_resamples, stream)
    trained = trained_models_tests(differences, intervals, METRICS[metric], settings)
    of_methods = methods_tests(methods, METRICS[metric], settings)
    results = []
    for (first, second), column, trained_test, methods_test in zip(
        methods, differences.T, trained, of_methods, strict=True
    ):
        answers = _non_inferiority(trained_test, methods_test, METRICS[metric], settings.margin)
        results.append(
            PairResult(
                first=first.method,
                second=second.method,
                metric=metric,
                class_name=class_name,
                num_cases=len(column),
                means=(_mean(first.case_means), _mean(second.case_means)),
                mean_difference=_mean(column),
                median_difference=float(np.median(column)) if len(column) else float("nan"),
                trained=trained_test,
                methods=methods_test,
                non_inferior=None if settings.margin is None or metric != settings.primary.name else answers,
            )
        )
    return results


def _non_inferiority(
    trained: TrainedModelsTest, methods: MethodsTest, metric: Metric, margin: float | None
) -> tuple[bool, bool]:
    """Judge by the methods if testable, otherwise by the trained models; not shown if neither is testable."""
    if margin is None or (methods.interval is None and trained.verdict == NOT_TESTABLE):
        return False, False
    return non_inferiority(methods.interval or trained.interval, metric, margin)


def _paired(methods: list[MethodScores], baseline: str | None) -> list[tuple[MethodScores, MethodScores]]:
    if baseline is None:
        return list(combinations(methods, 2))
    second = next((method for method in methods if method.method == baseline), None)  # may lack the class
    return [] if second is None else [(first, second) for first in methods if first is not second]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
