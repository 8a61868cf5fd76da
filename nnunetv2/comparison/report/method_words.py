"""What is said about the methods: other trainings, and other cases."""

from __future__ import annotations

from collections.abc import Iterator

from nnunetv2.comparison.report.formatting import listed
from nnunetv2.comparison.report.leader import OrientedPair
from nnunetv2.comparison.report.non_inferiority import non_inferiority_statements
from nnunetv2.comparison.report.pair_words import against, difference_in_words, excludes_zero, grouped
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import BETTER, MIN_SEEDS, NO_DIFFERENCE, NOT_TESTABLE, WORSE, Comparison


def method_statements(comparison: Comparison, pairs: list[OrientedPair]) -> Iterator[Statement]:
    """The verdicts on methods, pairs of one verdict together, and whether they are within the margin."""

    def with_verdict(verdict: str) -> list[OrientedPair]:
        return [pair for pair in pairs if pair.methods_verdict == verdict]

    def detail(pair: OrientedPair) -> str:
        return difference_in_words(
            comparison, pair, pair.methods_verdict, pair.methods_interval, pair.pair.methods.p_holm
        )

    beyond = "also for other trainings and other cases of this kind"
    yield from grouped(with_verdict(BETTER), f"The methods differ, {beyond}: {{}} is better than", detail)
    yield from grouped(with_verdict(WORSE), f"The methods differ, {beyond}: {{}} is worse than", detail)
    yield from grouped(
        with_verdict(NO_DIFFERENCE),
        "The methods do not show a difference beyond what other trainings and cases would change: {} and",
        detail,
        "That is no proof that the methods are equal.",
    )
    # The only contradiction there can be: p rises when it is adjusted, and both rest on the same test of the mean.
    if found := [pair for pair in with_verdict(NO_DIFFERENCE) if excludes_zero(pair.methods_interval)]:
        yield Statement(
            f"Test and interval do not agree for {against(found)}: p is adjusted for the number of pairs, the interval "
            "is for one pair alone and not adjusted."
        )
    if untestable := with_verdict(NOT_TESTABLE):
        yield _not_testable(comparison, untestable)
    yield from non_inferiority_statements(comparison, pairs)


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
