"""Which methods are worse than which by less than the margin, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nnunetv2.comparison.report.leader import OrientedPair
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import Comparison, PairResult


def non_inferiority_statements(comparison: Comparison, pairs: Sequence[OrientedPair]) -> Iterator[Statement]:
    """One statement of those for which it is shown, one of all others; none where it was not asked."""
    answers = _answers(comparison, pairs)
    for answer, wording in ((True, "is shown"), (False, "is not shown")):
        if items := tuple(question for question, found in answers if found == answer):
            yield Statement(f"{_non_inferiority(comparison)} {wording} for", items)


def non_inferiority_note(comparison: Comparison, pairs: Sequence[PairResult]) -> str:
    """A sentence below the table of the pairs; empty where it was not asked."""
    answers = _answers(comparison, [OrientedPair(pair.first, pair.second, pair) for pair in pairs])
    if not answers:
        return ""
    shown = [question for question, found in answers if found]
    if not shown:
        return f"{_non_inferiority(comparison)} is shown for none of the methods."
    rest = ", and for no other" if len(shown) < len(answers) else ""
    return f"{_non_inferiority(comparison)} is shown for {'; '.join(shown)}{rest}."


def _answers(comparison: Comparison, pairs: Sequence[OrientedPair]) -> list[tuple[str, bool]]:
    """Both ways for every pair; with a baseline, whether the other is worse than that."""
    baseline = comparison.settings.baseline
    return [
        (f"{method} against {other}", answer)
        for pair in pairs
        if pair.non_inferior is not None
        for method, other, answer in (
            (pair.first, pair.second, pair.non_inferior[0]),
            (pair.second, pair.first, pair.non_inferior[1]),
        )
        if baseline in (None, other)
    ]


def _non_inferiority(comparison: Comparison) -> str:
    margin = f"{comparison.settings.margin} {comparison.settings.primary.unit}".strip()
    return f"Non-inferiority with a margin of {margin} in {comparison.settings.metrics[0]}"
