"""Test whether methods differ beyond the given trainings and cases, for one pair and for a family of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from nnunetv2.comparison.metric import Metric
from nnunetv2.comparison.results import MIN_SEEDS, NO_DIFFERENCE, NOT_TESTABLE, Interval, MethodsTest
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics.trainings import DECIMALS, MethodScores
from nnunetv2.comparison.statistics.verdicts import holm, verdict


class MethodDifference(NamedTuple):
    """Estimated difference of the means of two methods; scalars, or arrays over leading axes."""

    difference: np.ndarray
    variance: np.ndarray
    """of the difference, over other trainings and other cases"""
    degrees_of_freedom: np.ndarray
    """NaN if nothing varies"""

    def p_value(self) -> np.ndarray:
        """Two-sided p-value; NaN if nothing varies."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return 2 * stdtr(self.degrees_of_freedom, -np.abs(self.difference) / np.sqrt(self.variance))

    def interval(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the interval that covers the difference in a share 1 - alpha of studies."""
        half_width = stdtrit(self.degrees_of_freedom, 1 - alpha / 2) * np.sqrt(self.variance)
        return self.difference - half_width, self.difference + half_width


def method_difference(first: np.ndarray, second: np.ndarray) -> MethodDifference:
    """Compare two methods, treating both trainings and cases as random samples.

    A score is modelled as the sum of method, case, method-case interaction, training, and residual. With the means of
    the trainings T (S x N scores, one method), the variance of the difference is

        sum over methods of max(var(means of trainings) / S, rest)  +  max(var(differences of cases) / N - rests, 0)

    The residual enters both terms, so it is subtracted once: `rest` is the mean square of the training-case
    interaction, divided by N S. Degrees of freedom follow Satterthwaite over all these variances. Trainings of two
    methods count as independent, even with equal seeds.

    This is the multi-reader multi-case analysis, with trainings as readers nested in a method. It was chosen by
    simulation (50 cases, residual 0.03 per case and training, 4 methods, 3000 studies per setting; family-wise error
    of the six pairs after Holm, nominal 0.05; benchmarks/method_test_calibration.py):

    - Welch's test on the means of trainings treats the cases as fixed. If methods differ in which cases are hard for
      them (standard deviation 0.02 to 0.04), its error rises to 0.7.
    - The two-level bootstrap underestimates the spread of three trainings: its error is 0.10 to 0.15 for a standard
      deviation of 0.01 between trainings.
    - Adding the variances without subtracting the residual keeps the error below 0.06 and has similar power with three
      trainings. With five, it detects a difference of 0.02 in 89 of 100 pairs where this test detects 91 (as one of
      six pairs: 66 and 73), for a method-case interaction of 0.02.
    - This test keeps the error below 0.06 in all settings, including unequal variances and numbers of trainings.

    A training of all folds is one unit. Folds do not count as separate trainings: with one seed they start from the
    same weights.

    Args:
        first: (..., S, N) scores of the S trainings of one method on N cases; S and N above 1.
        second: (..., S', N) likewise.

    Source: Obuchowski and Rockette, Communications in Statistics 24 (1995); Hillis, "A comparison of denominator
    degrees of freedom methods for multiple observer ROC analysis", Statistics in Medicine 26 (2007).
    """
    trainings, rests = zip(variance_parts(first), variance_parts(second), strict=True)
    num_cases = first.shape[-1]
    cases = (first.mean(axis=-2) - second.mean(axis=-2)).var(axis=-1, ddof=1) / num_cases
    difference = first.mean(axis=(-2, -1)) - second.mean(axis=(-2, -1))
    return difference_of_parts(difference, trainings, rests, cases, num_cases, (first.shape[-2], second.shape[-2]))


def difference_of_parts(
    difference: np.ndarray,
    trainings: tuple[np.ndarray, np.ndarray],
    rests: tuple[np.ndarray, np.ndarray],
    cases: np.ndarray,
    num_cases: int,
    num_trainings: tuple[int, int],
) -> MethodDifference:
    """Combine the variances that `method_difference` names.

    Args:
        trainings, rests: of both methods, see `variance_parts`.
        cases: variance of the differences of cases, divided by the number of cases.
    """
    variance = sum(np.maximum(training, rest) for training, rest in zip(trainings, rests, strict=True))
    variance = variance + np.maximum(cases - sum(rests), 0)
    uncertainty = cases**2 / (num_cases - 1)
    for training, rest, number in zip(trainings, rests, num_trainings, strict=True):
        uncertainty = uncertainty + (training**2 + rest**2 / (num_cases - 1)) / (number - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees_of_freedom = variance**2 / uncertainty
    return MethodDifference(difference, variance, degrees_of_freedom)


def variance_parts(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean of (..., S, N) scores: the observed part of the trainings, and that due to the residual."""
    num_trainings, num_cases = scores.shape[-2:]
    of_trainings = scores.mean(axis=-1, keepdims=True)
    of_cases = scores.mean(axis=-2, keepdims=True)
    rest = scores - of_trainings - of_cases + scores.mean(axis=(-2, -1), keepdims=True)
    mean_square = (rest**2).sum(axis=(-2, -1)) / ((num_trainings - 1) * (num_cases - 1))
    observed = of_trainings[..., 0].var(axis=-1, ddof=1) / num_trainings
    return observed, mean_square / (num_trainings * num_cases)


def methods_tests(
    pairs: Sequence[tuple[MethodScores, MethodScores]], metric: Metric, settings: CompareSettings
) -> list[MethodsTest]:
    """Test a family of pairs; pairs that are not testable do not count in the adjustment."""
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
    # Scores are exact to DECIMALS only, so a smaller spread is rounding error.
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
