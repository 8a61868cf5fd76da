"""Table of a second reader's agreement with the references, and of each method against it."""

from __future__ import annotations

from collections.abc import Iterator

from nnunetv2.comparison.report.formatting import UNKNOWN, coverage, listed, p_equals, score, with_unit
from nnunetv2.comparison.report.leader import OrientedPair
from nnunetv2.comparison.report.score_tables import interval_in_brackets, metric_title
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.report.table import Cell, Table, method_cell, number_cell, text_cell
from nnunetv2.comparison.results import (
    BETTER,
    MIXED,
    NO_DIFFERENCE,
    NOT_TESTABLE,
    WORSE,
    Comparison,
    MethodSummary,
    PairResult,
)

ABOVE, BELOW, NOT_DIFFERENT = "above", "below", "not different"
_WORDS = {BETTER: ABOVE, WORSE: BELOW, NO_DIFFERENCE: NOT_DIFFERENT, MIXED: MIXED, NOT_TESTABLE: NOT_TESTABLE}
_MOODS = {ABOVE: "good", BELOW: "bad", MIXED: "mixed", NOT_TESTABLE: "open"}


def reader_table(comparison: Comparison) -> Table | None:
    """The reader and all methods, per class and for the mean; None without a reader."""
    reader = comparison.reader
    if reader is None:
        return None
    metric = comparison.settings.metrics[0]
    heads = (
        text_cell("Class"),
        Cell((reader.name, metric_title(metric, comparison.scores.length_unit)), is_number=True),
    )
    rows = tuple(_row(comparison, each) for each in reader.summaries if each.metric == metric)
    return Table(
        f"Agreement of {reader.name}",
        (*heads, *(method_cell(method) for method in comparison.scores.methods)),
        rows,
        f"Second reading of the same cases. Its mean [{coverage(comparison.settings)}]; below each method's mean, the "
        "verdict on these trained models against it (signed-rank test, Holm-adjusted over the methods): better "
        "agreement with the references than the reader (above), worse (below), or not different, which is no proof "
        "that both are equal.",
    )


def reader_verdict(pair: PairResult) -> str:
    """Verdict on a method against the reader: above, below, not different, mixed or not testable."""
    return _WORDS[OrientedPair(pair.first, pair.second, pair).trained_verdict]


def _row(comparison: Comparison, summary: MethodSummary) -> tuple[Cell, ...]:
    name = "(mean)" if summary.class_name is None else summary.class_name
    pairs = {
        pair.first: pair
        for pair in comparison.reader.pairs
        if (pair.metric, pair.class_name) == (summary.metric, summary.class_name)
    }
    return (
        text_cell(name),
        number_cell(score(summary.mean, summary.metric), interval_in_brackets(summary)),
        *(_method_cell(pairs.get(method)) for method in comparison.scores.methods),
    )


def _method_cell(pair: PairResult | None) -> Cell:
    if pair is None:
        return text_cell(UNKNOWN)
    verdict = reader_verdict(pair)
    difference = score(pair.mean_difference, pair.metric, signed=True)
    lines = (score(pair.means[0], pair.metric), verdict, f"{difference}, {p_equals(pair.trained.p_holm)}")
    return text_cell(*lines, mood=_MOODS.get(verdict, ""))


def reader_statements(comparison: Comparison) -> Iterator[Statement]:
    """Yield one about the mean over classes, or about the first class that the reader has; none without a reader."""
    if comparison.reader is None:
        return
    metric = comparison.settings.metrics[0]
    summary = next(each for each in comparison.reader.summaries if each.metric == metric)
    groups: dict[str, list[str]] = {}
    for pair in comparison.reader.pairs:
        if (pair.metric, pair.class_name) == (metric, summary.class_name):
            groups.setdefault(reader_verdict(pair), []).append(pair.first)
    where = "" if summary.class_name is None else f" in {summary.class_name}"
    mean = with_unit(summary.mean, metric, comparison.scores.length_unit)
    verdicts = "; ".join(f"{verdict}: {listed(methods)}" for verdict, methods in groups.items())
    yield Statement(
        f"A second reading of these cases ({comparison.reader.name}) has a mean {metric}{where} of {mean}. Compared "
        f"with it, these trained models are {verdicts}."
    )
