"""Wilcoxon's signed-rank test and the effect size that belongs to it."""

from __future__ import annotations

import numpy as np

BISECTIONS = 64  # halve the range of the values down to their rounding


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
