"""Whether methods differ: which pairs can be tested at all, and the tests of those, adjusted within their family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nnunetv2.comparison.metric import Metric
from nnunetv2.comparison.results import MIN_SEEDS, NO_DIFFERENCE, NOT_TESTABLE, Interval, MethodsTest
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics.holm import holm
from nnunetv2.comparison.statistics.method_test import method_difference
from nnunetv2.comparison.statistics.trainings import DECIMALS, MethodScores
from nnunetv2.comparison.statistics.verdicts import verdict


def methods_tests(
    pairs: Sequence[tuple[MethodScores, MethodScores]], metric: Metric, settings: CompareSettings
) -> list[MethodsTest]:
    """The tests of a family of pairs. Pairs that are not testable are no part of it."""
    sign = 1 if metric.higher_is_better else -1
    tests = [_unadjusted(first, second, settings.alpha) for first, second in pairs]
    testable = [position for position, test in enumerate(tests) if test.p is not None]
    adjusted = holm(np.array([tests[position].p for position in testable]))
    for position, p_holm in zip(testable, adjusted.tolist(), strict=True):
        first, second = pairs[position]
        effect = sign * _rounded_difference(first, second)
        tests[position] = replace(tests[position], p_holm=p_holm, verdict=verdict(effect, p_holm, settings.alpha))
    return tests


def _unadjusted(first: MethodScores, second: MethodScores, alpha: float) -> MethodsTest:
    nothing = MethodsTest(None, None, None, None, (len(first.runs), len(second.runs)), NOT_TESTABLE)
    if few := [method for method in (first, second) if len(method.runs) < MIN_SEEDS]:
        needed = f"{MIN_SEEDS} trainings of each method with different seeds are needed"
        return replace(nothing, reason=f"{' and '.join(_trainings_in_words(method) for method in few)}; {needed}")
    if first.num_cases < 2:
        return replace(nothing, reason=f"{first.num_cases or 'no'} case counts; at least 2 are needed")
    result = method_difference(first.runs, second.runs)
    if result.variance < 10.0 ** (-2 * DECIMALS):
        if _rounded_difference(first, second) == 0:
            return replace(nothing, p=1.0, interval=Interval(0.0, 0.0), verdict=NO_DIFFERENCE)
        return replace(nothing, reason="no score varies, neither between the trainings nor between the cases")
    low, high = result.interval(alpha)
    return replace(
        nothing,
        p=float(result.p_value()),
        interval=Interval(float(low), float(high)),
        degrees_of_freedom=float(result.degrees_of_freedom),
    )


def _trainings_in_words(method: MethodScores) -> str:
    num_trainings = len(method.runs)
    words = f"{method.method} has {num_trainings} training{'s' if num_trainings > 1 else ''}"
    if not method.num_repeated:
        return words
    num_runs = num_trainings + method.num_repeated
    return f"{words} (of {num_runs} runs, those with identical scores count as one training)"


def _rounded_difference(first: MethodScores, second: MethodScores) -> float:
    return round(float(first.runs.mean() - second.runs.mean()), DECIMALS)
