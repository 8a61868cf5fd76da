"""Whether trained models differ on the cases at hand: signed-rank tests over cases, adjusted within their family."""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.metric import Metric
from nnunetv2.comparison.results import NO_DIFFERENCE, NOT_TESTABLE, Interval, TrainedModelsTest
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics.trainings import DECIMALS
from nnunetv2.comparison.statistics.verdicts import holm, verdict_of_ranks

BISECTIONS = 64  # halve the range of the values down to their rounding


def signed_rank_family(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p-values of the pairs of a family, plain and adjusted; NaN where there is no case.

    Args:
        differences: (N, P) first - second on each case, for each pair.
    """
    p_values = np.array([signed_rank_p(column) for column in differences.T])
    return p_values, holm(p_values)


def smallest_p(num_cases: int, num_pairs: int) -> float:
    """The adjusted p-value where one model is better in every case and all other pairs show nothing."""
    return min(1.0, num_pairs * 2.0 ** (1 - num_cases))


def trained_verdict(advantages: np.ndarray, p_holm: float, alpha: float) -> str:
    """What is said about the first of two trained models by its advantages (N,), positive where it is better."""
    if not len(advantages):
        return NOT_TESTABLE
    return verdict_of_ranks(rank_biserial(advantages), round(float(advantages.mean()), DECIMALS), p_holm, alpha)


def trained_models_tests(
    differences: np.ndarray, intervals: tuple[Interval, ...], metric: Metric, settings: CompareSettings
) -> list[TrainedModelsTest]:
    """The tests of a family of pairs; see `signed_rank_family`.

    A verdict follows the signed ranks, that is what happens in most cases. It is mixed where the mean difference has
    the other sign because few cases differ much. Where there are too few cases for any verdict, models that differ are
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
    """Two-sided p-value of paired differences (N,) of which none would be expected to be positive rather than negative.

    Differences of zero are left out (`zero_method="wilcox"`). Exact up to 50 cases without zeros and ties, and up to 13
    with them; beyond, the normal approximation with the variance corrected for ties. That is what
    `scipy.stats.wilcoxon` does unasked. Where all differences are zero, p is 1; where there is no case, NaN.

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

    The share of the rank sum that speaks for positive differences, less the share that speaks against. Zeros are left
    out; 0 where all are zero, NaN where there is no case.

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
    """Pseudo-median of differences (N,): the median of the means of all pairs of cases, each case with itself included.

    It is the shift for which the signed-rank test sees no difference. NaN where there is no case.

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
    """The `number`-th smallest mean of two values, by bisection: thousands of cases have too many means to hold."""
    low, high = float(ascending[0]), float(ascending[-1])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        ordered = int(np.searchsorted(ascending, 2 * middle - ascending, side="right").sum())
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
