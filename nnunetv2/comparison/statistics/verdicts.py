"""From a p-value and the sign of an effect to a word."""

from __future__ import annotations

from math import isnan

from nnunetv2.comparison.results import BETTER, NO_DIFFERENCE, NOT_TESTABLE, WORSE, Interval
from nnunetv2.comparison.settings import Metric


def verdict(effect: float, p_adjusted: float, alpha: float) -> str:
    """What is said about the first of two methods.

    Args:
        effect: positive where the first is better, in the sense of the metric.
        p_adjusted: NaN where there was nothing to test.
    """
    if isnan(p_adjusted):
        return NOT_TESTABLE
    if p_adjusted >= alpha or effect == 0:
        return NO_DIFFERENCE
    return BETTER if effect > 0 else WORSE


def is_non_inferior(interval: Interval, metric: Metric, margin: float) -> bool:
    """Whether even the worse end of the interval of first - second is within the margin; False of a NaN interval."""
    worst = interval.low if metric.higher_is_better else -interval.high
    return worst > -margin
