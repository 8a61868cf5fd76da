"""How pairs of methods are spoken of: the other method, by how much, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nnunetv2.comparison.report.formatting import bounds, coverage, is_known, listed, p_equals, score, with_unit
from nnunetv2.comparison.report.leader import OrientedPair, negated
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import NO_DIFFERENCE, WORSE, Comparison, Interval


def grouped(
    pairs: list[OrientedPair], lead: str, detail: Callable[[OrientedPair], str], ending: str = ""
) -> Iterator[Statement]:
    """One statement of all pairs, if there are any; `{}` in the lead stands for the method that they share."""
    if pairs:
        yield Statement(lead.replace("{}", pairs[0].first), tuple(detail(pair) for pair in pairs), ending)


def difference_in_words(
    comparison: Comparison, pair: OrientedPair, verdict: str, interval: Interval | None, p_holm: float | None
) -> str:
    """What follows a lead: the other method, and by how much."""
    metric = comparison.settings.metrics[0]
    amount = -pair.advantage if verdict == WORSE else pair.advantage
    if interval is not None and verdict == WORSE:
        interval = negated(interval)
    sure = f"{interval_in_words(comparison, interval)}; Holm-adjusted {p_equals(p_holm)}"
    if verdict == NO_DIFFERENCE:
        return f"{pair.second} (advantage of the former {score(amount, metric, signed=True)}, {sure})"
    return f"{pair.second} by {with_unit(amount, metric)} ({sure})"


def interval_in_words(comparison: Comparison, interval: Interval | None) -> str:
    """For example 95 % CI of the mean difference 0.010 to 0.030."""
    if not is_known(interval):
        return "no interval"
    return f"{coverage(comparison.settings)} of the mean difference {bounds(interval, comparison.settings.metrics[0])}"


def includes_zero(interval: Interval | None) -> bool:
    """Whether no difference lies within an interval; False where there is none."""
    return is_known(interval) and interval.low <= 0 <= interval.high


def excludes_zero(interval: Interval | None) -> bool:
    """Whether an interval lies on one side of no difference; False where there is none."""
    return is_known(interval) and not includes_zero(interval)


def against(pairs: list[OrientedPair]) -> str:
    """The method that the pairs share, and all others."""
    return f"{pairs[0].first} against {listed([pair.second for pair in pairs])}"
