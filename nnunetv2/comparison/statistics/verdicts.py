"""From p-values of a family of tests to verdicts: Holm's adjustment, then one verdict per pair."""

from __future__ import annotations

from math import isnan

import numpy as np

from nnunetv2.comparison.metric import Metric
from nnunetv2.comparison.results import BETTER, DIFFERENT, MIXED, NO_DIFFERENCE, NOT_TESTABLE, WORSE, Interval


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust the p-values of a family: rejecting those below alpha keeps the family-wise error at alpha.

    Valid under any dependence between the tests.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979).
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    num_left = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * num_left), 1.0)
    return adjusted


def verdict(effect: float, p_adjusted: float, alpha: float) -> str:
    """Verdict on the first of two methods.

    Args:
        effect: positive where the first is better, in the sense of the metric.
        p_adjusted: NaN if there was nothing to test.
    """
    if isnan(p_adjusted):
        return NOT_TESTABLE
    if p_adjusted >= alpha or effect == 0:
        return NO_DIFFERENCE
    return BETTER if effect > 0 else WORSE


def verdict_of_ranks(rank_effect: float, mean_effect: float, p_adjusted: float, alpha: float) -> str:
    """Verdict of a rank test on the first of two methods; mixed if the mean contradicts a significant difference.

    Args:
        rank_effect, mean_effect: positive where the first is better, in the sense of the metric.
        p_adjusted: NaN if there was nothing to test.
    """
    found = verdict(rank_effect, p_adjusted, alpha)
    return MIXED if found in DIFFERENT and rank_effect * mean_effect <= 0 else found


def non_inferiority(interval: Interval, metric: Metric, margin: float) -> tuple[bool, bool]:
    """Whether the first is worse than the second by less than the margin, and vice versa.

    Both are judged at the unfavourable end of the interval of first - second; False for a NaN interval.
    """
    first_is_higher = (interval.low > -margin, interval.high < margin)
    return first_is_higher if metric.higher_is_better else first_is_higher[::-1]
