"""Tables of pairwise tests."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.comparison.report.formatting import UNKNOWN, bounds, coverage, p_value, plain_number, score
from nnunetv2.comparison.report.pair_statements import non_inferiority_note
from nnunetv2.comparison.report.score_tables import metric_title
from nnunetv2.comparison.report.table import Cell, Table, method_cell, number_cell, text_cell
from nnunetv2.comparison.results import (
    BETTER,
    MIXED,
    NOT_TESTABLE,
    WORSE,
    Comparison,
    Interval,
    MethodsTest,
    PairResult,
)

MOST_ROWS = 120  # over all per-class tables; beyond that only tests.csv has them
_MOODS = {BETTER: "good", WORSE: "bad", MIXED: "mixed", NOT_TESTABLE: "open"}


def pair_tables(comparison: Comparison) -> list[Table]:
    """Build one table per metric for the mean over classes, then one per class in the primary metric."""
    metrics = comparison.settings.metrics
    tables = [_table(comparison, metric, None) for metric in metrics]
    classes = comparison.scores.classes
    if len(classes) > 1 and len(classes) * len(comparison.pairs_of(metrics[0])) <= MOST_ROWS:
        tables += [_table(comparison, metrics[0], name) for name in classes]
    return [table for table in tables if table.rows]


def _table(comparison: Comparison, metric: str, class_name: str | None) -> Table:
    pairs = comparison.pairs_of(metric, class_name)
    interval = coverage(comparison.settings)
    heads = (
        ("Pair", "first, second"),
        ("Cases",),
        ("Means",),
        ("Difference", "mean, median,", "Hodges-Lehmann"),
        ("Effect", "rank-biserial"),
        ("Trained models", interval, "p, p (Holm)"),
        ("Verdict",),
        ("Methods", interval, "p, p (Holm)"),
        ("Verdict",),
    )
    numbers = (1, 2, 3, 4, 5, 7)
    title = metric_title(metric, comparison.scores.length_unit)
    what = title if class_name is None else f"{title}, class {class_name}"
    return Table(
        what,
        tuple(Cell(lines, is_number=position in numbers) for position, lines in enumerate(heads)),
        tuple(_row(pair) for pair in pairs),
        _note(comparison, pairs, is_first=metric == comparison.settings.metrics[0] and class_name is None),
    )


def _row(pair: PairResult) -> tuple[Cell, ...]:
    metric = pair.metric
    trained = pair.trained
    differences = (pair.mean_difference, pair.median_difference, trained.hodges_lehmann)
    return (
        method_cell(pair.first, pair.second),
        number_cell(str(pair.num_cases)),
        number_cell(*(score(mean, metric) for mean in pair.means)),
        number_cell(*(score(difference, metric, signed=True) for difference in differences)),
        number_cell(plain_number(trained.rank_biserial, 2, signed=True)),
        _test_cell(metric, trained.interval, trained.p, trained.p_holm),
        text_cell(trained.verdict, mood=_MOODS.get(trained.verdict, "")),
        _test_cell(metric, pair.methods.interval, pair.methods.p, pair.methods.p_holm),
        _methods_verdict(pair.methods),
    )


def _test_cell(metric: str, interval: Interval | None, p: float | None, p_holm: float | None) -> Cell:
    if interval is None and p is None:
        return number_cell(UNKNOWN)
    return number_cell(bounds(interval, metric, signed=True), p_value(p), p_value(p_holm))


def _methods_verdict(test: MethodsTest) -> Cell:
    seeds = f"seeds {test.num_seeds[0]}, {test.num_seeds[1]}"
    return text_cell(test.verdict, seeds, mood=_MOODS.get(test.verdict, ""))


def _note(comparison: Comparison, pairs: Sequence[PairResult], is_first: bool) -> str:
    """Note below a table; what applies to all tables appears below the first only."""
    parts = []
    if is_first:
        parts.append(
            "Intervals are those of the mean difference, of each pair alone and not adjusted; p (Holm) is adjusted "
            "over the pairs. Trained models are tested by ranks (signed-rank test), methods by means."
        )
    if any(pair.trained.verdict == MIXED for pair in pairs):
        parts.append(
            "Mixed: trained models differ, but one is better by the ranks of the differences, the other in the mean."
        )
    return " ".join([*parts, *filter(None, [non_inferiority_note(comparison, pairs)])])
