"""Sentences about pairs of methods: as trained models on these cases, as methods, and relative to the margin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nnunetv2.comparison.report.formatting import (
    bounds,
    coverage,
    is_known,
    listed,
    p_equals,
    plain_number,
    score,
    unit_of,
    with_unit,
)
from nnunetv2.comparison.report.leader import OrientedPair, case_advantages, negated
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import (
    BETTER,
    DIFFERENT,
    MIN_SEEDS,
    MIXED,
    NO_DIFFERENCE,
    NOT_TESTABLE,
    WORSE,
    Comparison,
    Interval,
    PairResult,
)

_TEST = "(signed-rank test)"


def trained_statements(comparison: Comparison, pairs: list[OrientedPair]) -> Iterator[Statement]:
    """Yield the verdicts on trained models, grouped, and point out where test and interval disagree."""
    cases = f"on {_these(pairs)}"
    differ = f"These trained models differ {cases} {_TEST}: {{}} is"
    identical = [pair for pair in pairs if _is_identical(comparison, pair)]
    if identical:
        names = listed([identical[0].first, *(pair.second for pair in identical)])
        yield Statement(f"These trained models do not show a difference {cases}: {names} score alike in every case.")

    def with_verdict(verdict: str) -> list[OrientedPair]:
        return [pair for pair in pairs if pair.trained_verdict == verdict and pair not in identical]

    def detail(pair: OrientedPair) -> str:
        return _difference_in_words(
            comparison, pair, pair.trained_verdict, pair.trained_interval, pair.pair.trained.p_holm
        )

    yield from _grouped(with_verdict(BETTER), f"{differ} better than", detail)
    yield from _grouped(with_verdict(WORSE), f"{differ} worse than", detail)
    yield from _grouped(
        with_verdict(MIXED),
        f"These trained models differ, but not in one direction, {cases} {_TEST}:",
        lambda pair: _both_directions(comparison, pair),
        "So neither is called better: in the mean, few large differences outweigh many small ones.",
    )
    alike = with_verdict(NO_DIFFERENCE)
    yield from _grouped(
        alike,
        f"These trained models do not show a difference {cases} {_TEST}: {{}} and",
        detail,
        "That is no proof that they are equal: what lies within the interval remains possible."
        if all(_includes_zero(pair.trained_interval) for pair in alike)
        else "That is no proof that they are equal.",
    )
    yield from _grouped(
        with_verdict(NOT_TESTABLE),
        f"Whether these trained models differ {cases} is not testable: {{}} and",
        lambda pair: pair.second,
    )
    yield from _contradictions(pairs)
    yield from _count_of_pairs(comparison)


def _both_directions(comparison: Comparison, pair: OrientedPair) -> str:
    """Name the better method by ranks and the better one by mean."""
    advantages = case_advantages(comparison, pair)
    by_ranks, other, sign = (pair.first, pair.second, 1) if pair.rank_biserial > 0 else (pair.second, pair.first, -1)
    effect = plain_number(abs(pair.rank_biserial), 2, signed=True)
    wins = f"{int((sign * advantages > 0).sum())} of {len(advantages)} cases"
    lead = f"{by_ranks} is better than {other} in {wins} (rank-biserial {effect}; Holm-adjusted "
    lead += f"{p_equals(pair.pair.trained.p_holm)}), "
    # The mean favours the other method, so its interval is given from the other's side.
    interval = pair.trained_interval if sign < 0 else negated(pair.trained_interval)
    interval_text = _interval_in_words(comparison, interval)
    if pair.advantage == 0:
        return f"{lead}but not in the mean (no difference, {interval_text})"
    amount = with_unit(abs(pair.advantage), comparison.settings.metrics[0], comparison.scores.length_unit)
    return f"{lead}{other} in the mean (by {amount}, {interval_text})"


def _contradictions(pairs: list[OrientedPair]) -> Iterator[Statement]:
    found = [
        pair
        for pair in pairs
        if (pair.trained_verdict in (BETTER, WORSE) and _includes_zero(pair.trained_interval))
        or (pair.trained_verdict == NO_DIFFERENCE and _excludes_zero(pair.trained_interval))
    ]
    if found:
        yield Statement(
            f"Test and interval do not agree for {_against(found)}: the test looks at the ranks of the differences "
            "over the cases, the interval at their mean, for one pair alone and not adjusted. Few large differences "
            "are enough to set them apart."
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
    """Whether both score the same in every case, on average over their trainings."""
    advantages = case_advantages(comparison, pair)
    return len(advantages) > 0 and not advantages.any()


def _these(pairs: list[OrientedPair]) -> str:
    number = pairs[0].pair.num_cases if pairs else 0
    return "this one case" if number == 1 else f"these {number} cases"


def method_statements(comparison: Comparison, pairs: list[OrientedPair]) -> Iterator[Statement]:
    """Yield the verdicts on methods, grouped, and whether they are within the margin."""

    def with_verdict(verdict: str) -> list[OrientedPair]:
        return [pair for pair in pairs if pair.methods_verdict == verdict]

    def detail(pair: OrientedPair) -> str:
        return _difference_in_words(
            comparison, pair, pair.methods_verdict, pair.methods_interval, pair.pair.methods.p_holm
        )

    beyond = "also for other trainings and other cases of this kind"
    yield from _grouped(with_verdict(BETTER), f"The methods differ, {beyond}: {{}} is better than", detail)
    yield from _grouped(with_verdict(WORSE), f"The methods differ, {beyond}: {{}} is worse than", detail)
    yield from _grouped(
        with_verdict(NO_DIFFERENCE),
        "The methods do not show a difference beyond what other trainings and cases would change: {} and",
        detail,
        "That is no proof that the methods are equal.",
    )
    # No other contradiction is possible: adjustment only raises p, and p and interval come from the same test.
    if found := [pair for pair in with_verdict(NO_DIFFERENCE) if _excludes_zero(pair.methods_interval)]:
        yield Statement(
            f"Test and interval do not agree for {_against(found)}: p is adjusted for the number of pairs, the "
            "interval is for one pair alone and not adjusted."
        )
    if untestable := with_verdict(NOT_TESTABLE):
        yield _not_testable(comparison, untestable)
    yield from _non_inferiority_statements(comparison, pairs)


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


def _non_inferiority_statements(comparison: Comparison, pairs: Sequence[OrientedPair]) -> Iterator[Statement]:
    """Yield where non-inferiority is shown and where not, separately for methods and trained models."""
    for kind, answers in _margin_answers(comparison, pairs).items():
        for answer, wording in ((True, "is shown"), (False, "is not shown")):
            if items := tuple(question for question, found in answers if found == answer):
                yield Statement(f"{_margin_lead(comparison, kind)} {wording} for", items)


def non_inferiority_note(comparison: Comparison, pairs: Sequence[PairResult]) -> str:
    """Note below the table of pairs; empty without a margin."""
    oriented = [OrientedPair(pair.first, pair.second, pair) for pair in pairs]
    return " ".join(_note(comparison, kind, found) for kind, found in _margin_answers(comparison, oriented).items())


def _note(comparison: Comparison, kind: str, answers: Sequence[tuple[str, bool]]) -> str:
    shown = [question for question, found in answers if found]
    if not shown:
        return f"{_margin_lead(comparison, kind)} is shown for none."
    rest = ", and for no other" if len(shown) < len(answers) else ""
    return f"{_margin_lead(comparison, kind)} is shown for {'; '.join(shown)}{rest}."


def _margin_answers(comparison: Comparison, pairs: Sequence[OrientedPair]) -> dict[str, list[tuple[str, bool]]]:
    """Answers by subject, in both directions per pair; with a baseline, only whether the other method is inferior."""
    baseline = comparison.settings.baseline
    answers: dict[str, list[tuple[str, bool]]] = {}
    for pair in pairs:
        if pair.non_inferior is None:
            continue
        kind = "these trained models" if pair.methods_interval is None else "the methods"
        ways = ((pair.first, pair.second, pair.non_inferior[0]), (pair.second, pair.first, pair.non_inferior[1]))
        asked = [(f"{method} against {other}", answer) for method, other, answer in ways if baseline in (None, other)]
        answers.setdefault(kind, []).extend(asked)
    return answers


def _margin_lead(comparison: Comparison, kind: str) -> str:
    unit = unit_of(comparison.settings.metrics[0], comparison.scores.length_unit)
    margin = f"{comparison.settings.margin} {unit}".strip()
    return f"Non-inferiority of {kind} with a margin of {margin} in {comparison.settings.metrics[0]}"


def _grouped(
    pairs: list[OrientedPair], lead: str, detail: Callable[[OrientedPair], str], ending: str = ""
) -> Iterator[Statement]:
    """Combine pairs into one statement, if there are any; `{}` in the lead stands for their common method."""
    if pairs:
        yield Statement(lead.replace("{}", pairs[0].first), tuple(detail(pair) for pair in pairs), ending)


def _difference_in_words(
    comparison: Comparison, pair: OrientedPair, verdict: str, interval: Interval | None, p_holm: float | None
) -> str:
    """Complete a lead with the other method and the difference."""
    metric = comparison.settings.metrics[0]
    amount = -pair.advantage if verdict == WORSE else pair.advantage
    if interval is not None and verdict == WORSE:
        interval = negated(interval)
    sure = f"{_interval_in_words(comparison, interval)}; Holm-adjusted {p_equals(p_holm)}"
    if verdict == NO_DIFFERENCE:
        return f"{pair.second} (advantage of the former {score(amount, metric, signed=True)}, {sure})"
    return f"{pair.second} by {with_unit(amount, metric, comparison.scores.length_unit)} ({sure})"


def _interval_in_words(comparison: Comparison, interval: Interval | None) -> str:
    """Format as `95 % CI of the mean difference 0.010 to 0.030`."""
    if not is_known(interval):
        return "no interval"
    return f"{coverage(comparison.settings)} of the mean difference {bounds(interval, comparison.settings.metrics[0])}"


def _includes_zero(interval: Interval | None) -> bool:
    """Whether the interval contains zero; False if there is no interval."""
    return is_known(interval) and interval.low <= 0 <= interval.high


def _excludes_zero(interval: Interval | None) -> bool:
    """Whether the interval excludes zero; False if there is no interval."""
    return is_known(interval) and not _includes_zero(interval)


def _against(pairs: list[OrientedPair]) -> str:
    """Join the common method of the pairs and all others."""
    return f"{pairs[0].first} against {listed([pair.second for pair in pairs])}"
