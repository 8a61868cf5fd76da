"""What is said about these trained models on these cases."""

from __future__ import annotations

from collections.abc import Iterator

from nnunetv2.comparison.report.formatting import listed, p_equals, plain_number, with_unit
from nnunetv2.comparison.report.leader import OrientedPair, case_advantages, negated
from nnunetv2.comparison.report.pair_words import (
    against,
    difference_in_words,
    excludes_zero,
    grouped,
    includes_zero,
    interval_in_words,
)
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import BETTER, DIFFERENT, MIXED, NO_DIFFERENCE, NOT_TESTABLE, WORSE, Comparison

_TEST = "(signed-rank test)"


def trained_statements(comparison: Comparison, pairs: list[OrientedPair]) -> Iterator[Statement]:
    """The verdicts on trained models, pairs of one verdict together, and where test and interval do not agree."""
    cases = f"on {_these(pairs)}"
    differ = f"These trained models differ {cases} {_TEST}: {{}} is"
    identical = [pair for pair in pairs if _is_identical(comparison, pair)]
    if identical:
        names = listed([identical[0].first, *(pair.second for pair in identical)])
        yield Statement(f"These trained models do not show a difference {cases}: {names} score alike in every case.")

    def with_verdict(verdict: str) -> list[OrientedPair]:
        return [pair for pair in pairs if pair.trained_verdict == verdict and pair not in identical]

    def detail(pair: OrientedPair) -> str:
        return difference_in_words(
            comparison, pair, pair.trained_verdict, pair.trained_interval, pair.pair.trained.p_holm
        )

    yield from grouped(with_verdict(BETTER), f"{differ} better than", detail)
    yield from grouped(with_verdict(WORSE), f"{differ} worse than", detail)
    yield from grouped(
        with_verdict(MIXED),
        f"These trained models differ, but not in one direction, {cases} {_TEST}:",
        lambda pair: _both_directions(comparison, pair),
        "So neither is called better: in the mean, few large differences outweigh many small ones.",
    )
    alike = with_verdict(NO_DIFFERENCE)
    yield from grouped(
        alike,
        f"These trained models do not show a difference {cases} {_TEST}: {{}} and",
        detail,
        "That is no proof that they are equal: what lies within the interval remains possible."
        if all(includes_zero(pair.trained_interval) for pair in alike)
        else "That is no proof that they are equal.",
    )
    yield from grouped(
        with_verdict(NOT_TESTABLE),
        f"Whether these trained models differ {cases} is not testable: {{}} and",
        lambda pair: pair.second,
    )
    yield from _contradictions(pairs)
    yield from _count_of_pairs(comparison)


def _both_directions(comparison: Comparison, pair: OrientedPair) -> str:
    """Who is better by the ranks, and who in the mean."""
    advantages = case_advantages(comparison, pair)
    by_ranks, other, sign = (pair.first, pair.second, 1) if pair.rank_biserial > 0 else (pair.second, pair.first, -1)
    effect = plain_number(abs(pair.rank_biserial), 2, signed=True)
    wins = f"{int((sign * advantages > 0).sum())} of {len(advantages)} cases"
    lead = f"{by_ranks} is better than {other} in {wins} (rank-biserial {effect}; Holm-adjusted "
    lead += f"{p_equals(pair.pair.trained.p_holm)}), "
    # The mean speaks for the other, so its interval is told from the other's side.
    interval = pair.trained_interval if sign < 0 else negated(pair.trained_interval)
    interval_text = interval_in_words(comparison, interval)
    if pair.advantage == 0:
        return f"{lead}but not in the mean (no difference, {interval_text})"
    amount = with_unit(abs(pair.advantage), comparison.settings.metrics[0])
    return f"{lead}{other} in the mean (by {amount}, {interval_text})"


def _contradictions(pairs: list[OrientedPair]) -> Iterator[Statement]:
    found = [
        pair
        for pair in pairs
        if (pair.trained_verdict in (BETTER, WORSE) and includes_zero(pair.trained_interval))
        or (pair.trained_verdict == NO_DIFFERENCE and excludes_zero(pair.trained_interval))
    ]
    if found:
        yield Statement(
            f"Test and interval do not agree for {against(found)}: the test looks at the ranks of the differences over "
            "the cases, the interval at their mean, for one pair alone and not adjusted. Few large differences are "
            "enough to set them apart."
        )


def _count_of_pairs(comparison: Comparison) -> Iterator[Statement]:
    pairs = comparison.pairs_of(comparison.settings.metrics[0])
    if len(pairs) > 2:
        trained = sum(pair.trained.verdict in DIFFERENT for pair in pairs)
        mixed = sum(pair.trained.verdict == MIXED for pair in pairs)
        methods = sum(pair.methods.verdict in DIFFERENT for pair in pairs)
        yield Statement(
            f"Pairs that differ, of {len(pairs)} in all: {trained} as trained models"
            f"{f' ({mixed} of them not in one direction)' if mixed else ''}, {methods} as methods."
        )


def _is_identical(comparison: Comparison, pair: OrientedPair) -> bool:
    """Whether both have the same score in every case; each the mean over its trainings."""
    advantages = case_advantages(comparison, pair)
    return len(advantages) > 0 and not advantages.any()


def _these(pairs: list[OrientedPair]) -> str:
    number = pairs[0].pair.num_cases if pairs else 0
    return "this one case" if number == 1 else f"these {number} cases"
