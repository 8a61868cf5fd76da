"""The report as Markdown, for places that do not render HTML: the verdict and the tables."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from nnunetv2.comparison.report.definitions import definitions, package_versions
from nnunetv2.comparison.report.pair_tables import pair_tables
from nnunetv2.comparison.report.reader_table import reader_table
from nnunetv2.comparison.report.score_tables import class_tables, methods_table
from nnunetv2.comparison.report.sheet_tables import comparability_table, compute_table, detection_table, rank_tables
from nnunetv2.comparison.report.statement import Statement
from nnunetv2.comparison.report.table import Cell, Table
from nnunetv2.comparison.report.verdict import verdict_in_words
from nnunetv2.comparison.results import Comparison

_SPECIAL = re.compile(r"([\\`*_\[\]|~#$])")


def markdown_report(comparison: Comparison) -> str:
    """Render report.md."""
    return "\n\n".join(_blocks(comparison)) + "\n"


def escaped(text: str) -> str:
    """Escape text for Markdown, so that it contains no markup, HTML or table delimiters."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _blocks(comparison: Comparison) -> Iterator[str]:
    verdict = verdict_in_words(comparison)
    yield f"# Comparison on {escaped(comparison.dataset)}"
    for equality in comparison.comparability.broken:
        yield f"> **NOT COMPARABLE: {escaped(equality.item)}** ({escaped(equality.meaning)}) differs between the runs."
    yield f"**{escaped(verdict.headline.as_sentence())}**"
    for title, statements in (
        ("These trained models", verdict.trained),
        ("The methods", verdict.methods),
        ("Cost", verdict.cost),
        ("What cannot be said", verdict.limits),
    ):
        if statements:
            yield f"## {title}"
            yield "\n".join(f"- {_statement(statement)}" for statement in statements)
    agreement = reader_table(comparison)
    tables = [methods_table(comparison), *class_tables(comparison), *([] if agreement is None else [agreement])]
    yield from _tables("Scores", tables)
    yield from _tables("Tests of pairs", pair_tables(comparison))
    yield from _tables("Ranks", rank_tables(comparison))
    yield from _tables("Detection", [detection_table(comparison)])
    compute = compute_table(comparison)
    if compute.rows:
        yield from _tables(compute.title, [compute])
    else:
        yield f"## {escaped(compute.title)}"
        yield escaped(compute.note)
    yield from _tables("Comparability", [comparability_table(comparison)])
    yield "## Settings and definitions"
    terms = definitions(comparison.settings, comparison.scores)
    yield "\n".join(f"- **{escaped(term)}**: {escaped(text)}" for term, text in terms)
    yield "Computed with " + ", ".join(f"{name} {escaped(number)}" for name, number in package_versions()) + "."


def _statement(statement: Statement) -> str:
    if len(statement.items) < 2:
        return escaped(statement.as_sentence())
    ending = f"\n\n  {escaped(statement.ending)}\n" if statement.ending else ""
    return f"{escaped(statement.lead)}\n" + "\n".join(f"  - {escaped(item)}" for item in statement.items) + ending


def _tables(title: str, tables: list[Table]) -> Iterator[str]:
    tables = [table for table in tables if table.rows]
    if not tables:
        return
    yield f"## {escaped(title)}"
    for table in tables:
        if table.title != title:
            yield f"### {escaped(table.title)}"
        yield _table(table)
        if table.note:
            yield escaped(table.note)


def _table(table: Table) -> str:
    rule = "|".join("---:" if cell.is_number else "---" for cell in table.columns)
    rows = [_line(table.columns), f"|{rule}|", *(_line(row) for row in table.rows)]
    return "\n".join(rows)


def _line(cells: tuple[Cell, ...]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(cell: Cell) -> str:
    lines = [escaped(text) for text in cell.texts]
    if cell.is_best and lines:
        lines[0] = f"**{lines[0]}**"
    return "<br>".join(lines)
