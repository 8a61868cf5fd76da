"""The leading method of the verdict, and the pairs seen from its side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.results import ALL_CLASSES, BETTER, WORSE, Comparison, Interval, MethodSummary, PairResult
from nnunetv2.comparison.statistics.trainings import DECIMALS, method_scores

_OPPOSITE = {BETTER: WORSE, WORSE: BETTER}


@dataclass(frozen=True)
class OrientedPair:
    """A pair of methods seen from a chosen first one; advantages are positive where the first is better."""

    first: str
    second: str
    pair: PairResult

    @property
    def advantage(self) -> float:
        """Mean advantage of the first, in the unit of the metric."""
        return self._sign * self.pair.mean_difference

    @property
    def trained_interval(self) -> Interval:
        """Interval of the advantage, for these trained models."""
        return self._turned(self.pair.trained.interval)

    @property
    def methods_interval(self) -> Interval | None:
        """Interval of the advantage, for the methods."""
        interval = self.pair.methods.interval
        return None if interval is None else self._turned(interval)

    @property
    def trained_verdict(self) -> str:
        return self._as_seen(self.pair.trained.verdict)

    @property
    def methods_verdict(self) -> str:
        return self._as_seen(self.pair.methods.verdict)

    @property
    def rank_biserial(self) -> float:
        """Rank-biserial effect; positive where the first is better."""
        effect = self.pair.trained.rank_biserial
        return -effect if self._is_swapped else effect

    @property
    def non_inferior(self) -> tuple[bool, bool] | None:
        """Whether the first is worse than the second by less than the margin, and vice versa."""
        answers = self.pair.non_inferior
        return answers if answers is None or not self._is_swapped else (answers[1], answers[0])

    @property
    def num_seeds(self) -> tuple[int, int]:
        seeds = self.pair.methods.num_seeds
        return (seeds[1], seeds[0]) if self._is_swapped else seeds

    @property
    def _is_swapped(self) -> bool:
        return self.first != self.pair.first

    @property
    def _sign(self) -> int:
        return 1 if METRICS[self.pair.metric].higher_is_better != self._is_swapped else -1

    def _turned(self, interval: Interval) -> Interval:
        return interval if self._sign > 0 else negated(interval)

    def _as_seen(self, verdict: str) -> str:
        return _OPPOSITE.get(verdict, verdict) if self._is_swapped else verdict


def negated(interval: Interval) -> Interval:
    """Interval of the differences with the opposite sign."""
    return Interval(-interval.high, -interval.low)


def means_of(comparison: Comparison, metric: str | None = None, class_name: str | None = None) -> list[MethodSummary]:
    """Summaries of a metric (default: the primary one), best mean first; ties keep the order of the methods."""
    name = metric or comparison.settings.metrics[0]
    summaries = comparison.summaries_of(name, class_name)
    worst = -np.inf if METRICS[name].higher_is_better else np.inf

    def goodness(summary: MethodSummary) -> float:
        mean = worst if np.isnan(summary.mean) else summary.mean
        return -mean if METRICS[name].higher_is_better else mean

    return sorted(summaries, key=goodness)


def pairs_of_leader(comparison: Comparison) -> list[OrientedPair]:
    """Pairs of the baseline, or of the method with the best mean, with the others, best of those first."""
    order = [summary.method for summary in means_of(comparison)]
    leader = comparison.settings.baseline or order[0]
    pairs = [
        OrientedPair(leader, pair.second if pair.first == leader else pair.first, pair)
        for pair in comparison.pairs_of(comparison.settings.metrics[0])
        if leader in (pair.first, pair.second)
    ]
    return sorted(pairs, key=lambda pair: order.index(pair.second))


def case_advantages(comparison: Comparison, pair: OrientedPair) -> np.ndarray:
    """(N,) advantages of the first on the cases that count, from means over trainings and classes."""
    scores = method_scores(comparison.scores, pair.pair.metric, ALL_CLASSES)
    means = {method.method: method.case_means for method in scores}
    sign = 1 if METRICS[pair.pair.metric].higher_is_better else -1
    return sign * np.round(means[pair.first] - means[pair.second], DECIMALS)
