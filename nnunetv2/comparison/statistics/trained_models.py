"""Test whether trained models differ on the given cases: signed-rank tests, Holm-adjusted within their family."""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.metric import Metric
from nnunetv2.comparison.results import NO_DIFFERENCE, NOT_TESTABLE, Interval, TrainedModelsTest
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics.trainings import DECIMALS
from nnunetv2.comparison.statistics.verdicts import holm, verdict_of_ranks

BISECTIONS = 64  # enough to narrow the range of values down to rounding error


def signed_rank_family(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute plain and adjusted p-values of a family of pairs; NaN without cases.

    Args:
        differences: (N, P) first - second per case and pair.
    """
    p_values = np.array([signed_rank_p(column) for column in differences.T])
    return p_values, holm(p_values)


def smallest_p(num_cases: int, num_pairs: int) -> float:
    """Smallest attainable adjusted p-value: one model is better in every case, and no other pair shows anything."""
    return min(1.0, num_pairs * 2.0 ** (1 - num_cases))


def trained_verdict(advantages: np.ndarray, p_holm: float, alpha: float) -> str:
    """Verdict on the first of two trained models from its advantages (N,), positive where it is better."""
    if not len(advantages):
        return NOT_TESTABLE
    return verdict_of_ranks(rank_biserial(advantages), round(float(advantages.mean()), DECIMALS), p_holm, alpha)


def trained_models_tests(
    differences: np.ndarray, intervals: tuple[Interval, ...], metric: Metric, settings: CompareSettings
) -> list[TrainedModelsTest]:
    """Test a family of pairs; see `signed_rank_family`.

    Verdicts follow the signed ranks, i.e. the majority of cases. They are mixed if the mean difference has the
    opposite sign because a few cases differ a lot. With too few cases to reach significance, models that differ are
    not testable.
    """
    sign = 1 if metric.higher_is_better else -1
    p_values, adjusted = signed_rank_family(differences)
    is_testable = smallest_p(*differences.shape) < settings.alpha
    tests = []
    for column, interval, p, p_holm in zip(differences.T, intervals, p_values, adjusted, strict=True):
        found = trained_verdict(sign * column, float(p_holm), settings.alpha)
        if found == NO_DIFFERENCE and not is_testable and np.any(column):
            found = NOT_TESTABLE
        tests.append(
            TrainedModelsTest(
                p=float(p),
                p_holm=float(p_holm),
                interval=interval,
                hodges_lehmann=hodges_lehmann(column),
                rank_biserial=rank_biserial(sign * column),
                verdict=found,
            )
        )
    return tests


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p-value of paired differences (N,), under the hypothesis that they are symmetric around zero.

    Zero differences are dropped (`zero_method="wilcox"`). Exact up to 50 cases without zeros and ties, and up to 13
    with them; beyond that the tie-corrected normal approximation, which is the default of `scipy.stats.wilcoxon`. If
    all differences are zero, p is 1; without cases, NaN.

    Source: Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1 (1945).
    """
    if len(differences) == 0:
        return float("nan")
    if not np.any(differences):
        return 1.0
    from scipy.stats import wilcoxon  # takes a second to import

    return float(wilcoxon(differences, zero_method="wilcox", alternative="two-sided").pvalue)


def rank_biserial(differences: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation of differences (N,), from -1 (all negative) to 1 (all positive).

    Share of the rank sum of positive differences minus that of negative ones. Zeros are dropped; 0 if all are zero,
    NaN without cases.

    Source: Kerby, "The simple difference formula", Comprehensive Psychology 3 (2014).
    """
    if len(differences) == 0:
        return float("nan")
    differences = differences[differences != 0]
    if len(differences) == 0:
        return 0.0
    ranks = _mean_ranks(np.abs(differences))
    return float(np.sum(ranks * np.sign(differences)) / np.sum(ranks))


def hodges_lehmann(differences: np.ndarray) -> float:
    """Pseudo-median of differences (N,): median of the means of all pairs of cases, including each case with itself.

    It is the shift at which the signed-rank test finds no difference. NaN without cases.

    Source: Hodges and Lehmann, "Estimates of location based on rank tests", Annals of Mathematical Statistics 34
    (1963).
    """
    if len(differences) == 0:
        return float("nan")
    ascending = np.sort(differences)
    num_means = len(ascending) * (len(ascending) + 1) // 2
    lower, upper = (_smallest_mean(ascending, number) for number in ((num_means + 1) // 2, num_means // 2 + 1))
    return (lower + upper) / 2


def _smallest_mean(ascending: np.ndarray, number: int) -> float:
    """The `number`-th smallest mean of two values, by bisection: all means of thousands of cases exceed the memory."""
    low, high = float(ascending[0]), float(ascending[-1])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        ordered = int(np.searchsorted(ascending, 2 * middle - ascending, side="right").sum())
        # `ordered` counts every pair twice, except those of a case with itself.
        with_itself = int(np.searchsorted(ascending, middle, side="right"))
        if (ordered + with_itself) // 2 >= number:
            high = middle
        else:
            low = middle
    return high


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 in ascending order; ties share their mean rank."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    return (last - (sizes - 1) / 2)[group]
