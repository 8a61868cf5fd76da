"""Tables of scores: methods by metrics, and classes by methods."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.report.formatting import coverage, score, unit_of
from nnunetv2.comparison.report.table import Cell, Table, method_cell, number_cell, text_cell
from nnunetv2.comparison.results import Comparison, MethodSummary

_ARROWS = {True: "↑", False: "↓"}


def metric_title(metric: str, length_unit: str) -> str:
    """Name and unit of a metric, with an arrow pointing towards better scores; see `unit_of` for the unit."""
    unit = unit_of(metric, length_unit)
    return f"{metric}{f' ({unit})' if unit else ''} {_ARROWS[METRICS[metric].higher_is_better]}"


def methods_table(comparison: Comparison) -> Table:
    """All methods and metrics, means over the classes."""
    metrics, unit = comparison.settings.metrics, comparison.scores.length_unit
    columns = {metric: comparison.summaries_of(metric) for metric in metrics}
    rows = []
    for method in comparison.scores.methods:
        cells = [_summary_cell(_of(columns[metric], method), columns[metric]) for metric in metrics]
        rows.append((method_cell(method), *cells))
    if comparison.reader is not None:
        of_reader = [each for each in comparison.reader.summaries if each.class_name is None]
        if of_reader:
            rows.append(
                (text_cell(comparison.reader.name), *(_summary_cell(each, [each], False) for each in of_reader))
            )
    return Table(
        "Methods",
        (text_cell("Method"), *(Cell((metric_title(metric, unit),), is_number=True) for metric in metrics)),
        tuple(rows),
        f"Mean [{coverage(comparison.settings)}], standard deviation and median over cases; each case is the mean over "
        "its classes and over the trainings of the method. Below that, where there are several trainings, the standard "
        "deviation of their means. Bold: best mean of the column.",
    )


def class_tables(comparison: Comparison) -> list[Table]:
    """One table per metric with all classes and methods; empty for a single class."""
    if len(comparison.scores.classes) < 2:
        return []
    return [_class_table(comparison, metric) for metric in comparison.settings.metrics]


def _class_table(comparison: Comparison, metric: str) -> Table:
    methods = comparison.scores.methods
    rows = []
    for name in comparison.scores.classes:
        summaries = comparison.summaries_of(metric, name)
        num_cases = summaries[0].num_cases if summaries else 0
        cells = [_class_cell(_of(summaries, method), summaries) for method in methods]
        rows.append((text_cell(name), number_cell(str(num_cases)), *cells))
    columns = (text_cell("Class"), Cell(("Cases",), is_number=True), *(method_cell(method) for method in methods))
    return Table(
        f"{metric_title(metric, comparison.scores.length_unit)} per class",
        columns,
        tuple(rows),
        f"Mean [{coverage(comparison.settings)}] over the cases that count for the class. Bold: best mean of the row.",
    )


def _of(summaries: Sequence[MethodSummary], method: str) -> MethodSummary | None:
    return next((each for each in summaries if each.method == method), None)


def _summary_cell(summary: MethodSummary | None, others: Sequence[MethodSummary], is_method: bool = True) -> Cell:
    if summary is None:
        return number_cell(score(None, others[0].metric) if others else "")
    metric = summary.metric
    spread = f"sd {score(summary.standard_deviation, metric)} · median {score(summary.median, metric)}"
    lines = [score(summary.mean, metric), interval_in_brackets(summary), spread]
    if summary.seed_deviation is not None:
        lines.append(f"sd of trainings {score(summary.seed_deviation, metric)}")
    return number_cell(*lines, is_best=is_method and is_best(summary, others))


def _class_cell(summary: MethodSummary | None, others: Sequence[MethodSummary]) -> Cell:
    if summary is None:
        return number_cell("–")
    return number_cell(
        score(summary.mean, summary.metric), interval_in_brackets(summary), is_best=is_best(summary, others)
    )


def interval_in_brackets(summary: MethodSummary) -> str:
    """Format as `[0.901, 0.922]`."""
    low, high = (score(end, summary.metric) for end in (summary.interval.low, summary.interval.high))
    return f"[{low}, {high}]"


def is_best(summary: MethodSummary, others: Sequence[MethodSummary]) -> bool:
    """Whether no other method has a better mean; False for NaN."""
    if METRICS[summary.metric].higher_is_better:
        return all(not each.mean > summary.mean for each in others) and summary.mean == summary.mean
    return all(not each.mean < summary.mean for each in others) and summary.mean == summary.mean
