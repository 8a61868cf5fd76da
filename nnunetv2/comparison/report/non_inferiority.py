"""Which methods are worse than which by less than the margin, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nnunetv2.comparison.report.leader import OrientedPair
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.results import Comparison, PairResult


def non_inferiority_statements(comparison: Comparison, pairs: Sequence[OrientedPair]) -> Iterator[Statement]:
    """Those for which it is shown, and all others, of methods and of trained models apart; none if it was not asked."""
    for kind, answers in _answers(comparison, pairs).items():
        for answer, wording in ((True, "is shown"), (False, "is not shown")):
            if items := tuple(question for question, found in answers if found == answer):
                yield Statement(f"{_non_inferiority(comparison, kind)} {wording} for", items)


def non_inferiority_note(comparison: Comparison, pairs: Sequence[PairResult]) -> str:
    """What is below the table of the pairs; empty where it was not asked."""
    oriented = [OrientedPair(pair.first, pair.second, pair) for pair in pairs]
    return " ".join(_summary(comparison, kind, found) for kind, found in _answers(comparison, oriented).items())


def _summary(comparison: Comparison, kind: str, answers: Sequence[tuple[str, bool]]) -> str:
    shown = [question for question, found in answers if found]
    if not shown:
        return f"{_non_inferiority(comparison, kind)} is shown for none."
    rest = ", and for no other" if len(shown) < len(answers) else ""
    return f"{_non_inferiority(comparison, kind)} is shown for {'; '.join(shown)}{rest}."


def _answers(comparison: Comparison, pairs: Sequence[OrientedPair]) -> dict[str, list[tuple[str, bool]]]:
    """By what they are about: both ways for every pair; with a baseline, whether the other is worse than that."""
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


def _non_inferiority(comparison: Comparison, kind: str) -> str:
    margin = f"{comparison.settings.margin} {comparison.settings.primary.unit}".strip()
    return f"Non-inferiority of {kind} with a margin of {margin} in {comparison.settings.metrics[0]}"
