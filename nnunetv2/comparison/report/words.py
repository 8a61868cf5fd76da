"""The verdict in words: who is better, by how much, how surely, at what cost, and what cannot be said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nnunetv2.comparison.report.cost_words import cost_statements
from nnunetv2.comparison.report.leader import OrientedPair, is_identical, means_of, negated, pairs_of_leader
from nnunetv2.comparison.report.limit_words import limit_statements
from nnunetv2.comparison.report.number_text import (
    bounds,
    coverage,
    is_known,
    listed,
    p_equals,
    score,
    with_unit,
)
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import (
    BETTER,
    MIN_SEEDS,
    NO_DIFFERENCE,
    NOT_TESTABLE,
    WORSE,
    Comparison,
    Interval,
    MethodSummary,
)
from nnunetv2.utilities.counted_words import counted


@dataclass(frozen=True)
class Verdict:
    """What a comparison says. Iterating over it gives running text, in the order of a reader's questions."""

    headline: Statement
    trained: tuple[Statement, ...]
    """about these trained models on these cases"""
    methods: tuple[Statement, ...]
    """about other trainings and other cases"""
    cost: tuple[Statement, ...]
    limits: tuple[Statement, ...]
    """what cannot be said"""

    def __iter__(self) -> Iterator[str]:
        for statement in (self.headline, *self.trained, *self.methods, *self.cost, *self.limits):
            yield statement.as_sentence()


def verdict_in_words(comparison: Comparison) -> Verdict:
    """The verdict by the primary metric, mean over the classes: the best against all others, or the baseline."""
    pairs = pairs_of_leader(comparison)
    return Verdict(
        headline=_headline(comparison),
        trained=tuple(_trained_statements(comparison, pairs)),
        methods=tuple(_method_statements(comparison, pairs)),
        cost=tuple(cost_statements(comparison)),
        limits=tuple(limit_statements(comparison)),
    )


def _headline(comparison: Comparison) -> Statement:
    metric = comparison.settings.primary
    summaries = means_of(comparison)
    best = summaries[0]
    if best.num_cases == 0:
        return Statement(
            f"No case of {comparison.dataset} counts in {metric.name}, so nothing is said about any method."
        )
    leaders = [each.method for each in summaries if each.mean == best.mean] or [best.method]
    extreme = "highest" if metric.higher_is_better else "lowest"
    return Statement(
        f"{listed(leaders)} {'has' if len(leaders) == 1 else 'share'} the {extreme} mean {metric.name} of "
        f"{counted(len(summaries), 'method')}: {with_unit(best.mean, metric.name)} ({coverage(comparison.settings)} "
        f"{bounds(best.interval, metric.name)}), on {counted(best.num_cases, 'case')} of {comparison.dataset}, with "
        f"{_trainings(summaries)}."
    )


def _trainings(summaries: list[MethodSummary]) -> str:
    numbers = sorted({each.num_runs for each in summaries})
    if len(numbers) == 1:
        return f"{counted(numbers[0], 'training')} of each method"
    return f"{numbers[0]} to {numbers[-1]} trainings of a method"


def _trained_statements(comparison: Comparison, pairs: list[OrientedPair]) -> Iterator[Statement]:
    cases = f"on {_these(pairs)}"
    identical = [pair for pair in pairs if is_identical(comparison, pair)]
    if identical:
        names = listed([identical[0].first, *(pair.second for pair in identical)])
        yield Statement(f"These trained models do not show a difference {cases}: {names} score alike in every case.")

    def with_verdict(verdict: str) -> list[OrientedPair]:
        return [pair for pair in pairs if pair.trained_verdict == verdict and pair not in identical]

    def detail(pair: OrientedPair) -> str:
        return _detail(comparison, pair, pair.trained_verdict, pair.trained_interval, pair.pair.trained.p_holm)

    yield from _grouped(with_verdict(BETTER), f"These trained models differ {cases}: {{}} is better than", detail)
    yield from _grouped(with_verdict(WORSE), f"These trained models differ {cases}: {{}} is worse than", detail)
    yield from _grouped(
        with_verdict(NO_DIFFERENCE),
        f"These trained models do not show a difference {cases}: {{}} and",
        detail,
        "That is no proof that they are equal: what lies within the interval remains possible.",
    )
    yield from _grouped(
        with_verdict(NOT_TESTABLE), f"Whether these trained models differ {cases} is not testable: {{}} and", _name
    )
    yield from _count_of_pairs(comparison)


def _method_statements(comparison: Comparison, pairs: list[OrientedPair]) -> Iterator[Statement]:
    def with_verdict(verdict: str) -> list[OrientedPair]:
        return [pair for pair in pairs if pair.methods_verdict == verdict]

    def detail(pair: OrientedPair) -> str:
        return _detail(comparison, pair, pair.methods_verdict, pair.methods_interval, pair.pair.methods.p_holm)

    beyond = "also for other trainings and other cases of this kind"
    yield from _grouped(with_verdict(BETTER), f"The methods differ, {beyond}: {{}} is better than", detail)
    yield from _grouped(with_verdict(WORSE), f"The methods differ, {beyond}: {{}} is worse than", detail)
    yield from _grouped(
        with_verdict(NO_DIFFERENCE),
        "The methods do not show a difference beyond what other trainings and cases would change: {} and",
        detail,
        "That is no proof that the methods are equal.",
    )
    if untestable := with_verdict(NOT_TESTABLE):
        yield _not_testable(comparison, untestable)
    yield from _non_inferiority(comparison, pairs)


def _not_testable(comparison: Comparison, pairs: list[OrientedPair]) -> Statement:
    seeds = {pairs[0].first: pairs[0].num_seeds[0]} | {pair.second: pair.num_seeds[1] for pair in pairs}
    others = "any of the others" if len(pairs) > 3 else listed([pair.second for pair in pairs], "or")
    lead = f"The methods: not testable. Whether {pairs[0].first} differs as a method from {others} is open"
    if min(seeds.values()) >= MIN_SEEDS:
        reasons = dict.fromkeys(pair.pair.methods.reason or "no reason is recorded" for pair in pairs)
        return Statement(f"{lead}: {'; '.join(reasons)}.")
    return Statement(
        f"{lead}: other seeds alone would have changed the scores. It takes at least {MIN_SEEDS} trainings of each "
        f"method, with different seeds; here {_numbers_of_seeds(comparison, seeds)}."
    )


def _numbers_of_seeds(comparison: Comparison, seeds: dict[str, int]) -> str:
    copies = {name: len(comparison.scores.runs_of(name)) for name, number in seeds.items()}
    if len(set(seeds.values())) == 1 and copies == seeds:
        return f"each has {next(iter(seeds.values()))}"
    return listed(
        [
            f"{name} has {number}"
            + (f" (of its {copies[name]} runs, those that score alike count as one)" if copies[name] > number else "")
            for name, number in seeds.items()
        ]
    )


def _non_inferiority(comparison: Comparison, pairs: list[OrientedPair]) -> Iterator[Statement]:
    asked = [each.pair for each in pairs if each.pair.non_inferior is not None]
    margin = f"{comparison.settings.margin} {comparison.settings.primary.unit}".strip()
    for answer, wording in ((True, "is shown"), (False, "is not shown")):
        items = tuple(f"{pair.first} against {pair.second}" for pair in asked if pair.non_inferior == answer)
        if items:
            lead = f"Non-inferiority with a margin of {margin} in {comparison.settings.metrics[0]} {wording} for"
            yield Statement(lead, items)


def _count_of_pairs(comparison: Comparison) -> Iterator[Statement]:
    pairs = comparison.pairs_of(comparison.settings.metrics[0])
    if len(pairs) > 2:
        trained = sum(pair.trained.verdict in (BETTER, WORSE) for pair in pairs)
        methods = sum(pair.methods.verdict in (BETTER, WORSE) for pair in pairs)
        yield Statement(
            f"Pairs that differ, of {len(pairs)} in all: {trained} as trained models, {methods} as methods."
        )


def _grouped(
    pairs: list[OrientedPair], lead: str, detail: Callable[[OrientedPair], str], ending: str = ""
) -> Iterator[Statement]:
    if pairs:
        yield Statement(lead.replace("{}", pairs[0].first), tuple(detail(pair) for pair in pairs), ending)


def _detail(
    comparison: Comparison, pair: OrientedPair, verdict: str, interval: Interval | None, p_holm: float | None
) -> str:
    """What follows a lead: the other method, and by how much."""
    metric = comparison.settings.metrics[0]
    amount = -pair.advantage if verdict == WORSE else pair.advantage
    if interval is not None and verdict == WORSE:
        interval = negated(interval)
    interval_text = (
        f"{coverage(comparison.settings)} {bounds(interval, metric)}" if is_known(interval) else "no interval"
    )
    sure = f"{interval_text}; Holm-adjusted {p_equals(p_holm)}"
    if verdict == NO_DIFFERENCE:
        return f"{pair.second} (advantage of the former {score(amount, metric, signed=True)}, {sure})"
    if amount <= 0:
        return f"{pair.second} in most cases, but not in the mean (by {score(amount, metric, signed=True)}, {sure})"
    return f"{pair.second} by {with_unit(amount, metric)} ({sure})"


def _name(pair: OrientedPair) -> str:
    return pair.second


def _these(pairs: list[OrientedPair]) -> str:
    number = pairs[0].pair.num_cases if pairs else 0
    return "this one case" if number == 1 else f"these {number} cases"
