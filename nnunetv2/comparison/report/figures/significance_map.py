"""Significance map: which methods differ, as trained models and as methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.report.figures.style import height_of, label_rows, new_figure, wrapped
from nnunetv2.comparison.report.palette import (
    BETTER_COLOUR,
    INK,
    MIXED_COLOUR,
    NEUTRAL_COLOUR,
    WORSE_COLOUR,
    MethodStyle,
)
from nnunetv2.comparison.results import BETTER, DIFFERENT, MIXED, NO_DIFFERENCE, NOT_TESTABLE, WORSE, Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OPPOSITE = {BETTER: WORSE, WORSE: BETTER}
_COLOURS = {
    BETTER: BETTER_COLOUR,
    WORSE: WORSE_COLOUR,
    MIXED: MIXED_COLOUR,
    NO_DIFFERENCE: NEUTRAL_COLOUR,
    NOT_TESTABLE: "white",
}
_HATCHES = {MIXED: "xxxx", NOT_TESTABLE: "////"}
_MOST_WRITTEN = 12  # methods; larger maps leave out the p-values

Field = tuple[str, float | None]  # verdict for the method of the row, Holm-adjusted p


def draw_significance_map(comparison: Comparison, styles: dict[str, MethodStyle]) -> Figure | None:
    """Draw two maps in the primary metric: for the trained models and for the methods."""
    pairs = comparison.pairs_of(comparison.settings.metrics[0])
    if not pairs:
        return None
    trained = _fields([(pair.first, pair.second, pair.trained.verdict, pair.trained.p_holm) for pair in pairs])
    methods = _fields([(pair.first, pair.second, pair.methods.verdict, pair.methods.p_holm) for pair in pairs])
    labels = [wrapped(f"{style.code}  {name}", 26) for name, style in styles.items()]
    figure = new_figure(0.65 + len(labels) * height_of(labels, 0.28))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, fields, title in ((left, trained, "These trained models"), (right, methods, "The methods")):
        _draw_map(axes, fields, styles)
        axes.set_title(f"{title} (p after Holm)", loc="left")
        axes.set_xlabel("against")
    label_rows(left, labels)
    right.tick_params(axis="y", length=0)
    return figure


def _fields(pairs: list[tuple[str, str, str, float | None]]) -> dict[tuple[str, str], Field]:
    """Enter each pair from both sides, with the verdict flipped for the second."""
    fields = {}
    for first, second, verdict, p in pairs:
        fields[first, second] = (verdict, p)
        fields[second, first] = (_OPPOSITE.get(verdict, verdict), p)
    return fields


def _draw_map(axes: Axes, fields: dict[tuple[str, str], Field], styles: dict[str, MethodStyle]) -> None:
    from matplotlib.patches import Rectangle

    methods = list(styles)
    for row, method in enumerate(methods):
        for column, other in enumerate(methods):
            if (method, other) not in fields:
                continue
            verdict, p = fields[method, other]
            corner = (column - 0.47, row - 0.47)
            axes.add_patch(
                Rectangle(
                    corner,
                    0.94,
                    0.94,
                    facecolor=_COLOURS[verdict],
                    edgecolor="#C9CED6",
                    hatch=_HATCHES.get(verdict),
                    linewidth=0,
                )
            )
            if len(methods) <= _MOST_WRITTEN and verdict != NOT_TESTABLE:
                colour = "white" if verdict in DIFFERENT else INK
                # Background in the field's colour, so that no hatching crosses the number.
                box = {"facecolor": _COLOURS[verdict], "edgecolor": "none", "pad": 0.8}
                axes.text(column, row, short_p(p), ha="center", va="center", fontsize=5.5, color=colour, bbox=box)
    axes.set_xlim(-0.5, len(methods) - 0.5)
    axes.set_xticks(range(len(methods)), [style.code for style in styles.values()])
    axes.tick_params(axis="x", length=0)


def short_p(p: float | None) -> str:
    """Format p in at most five characters: .012, <.001, 1."""
    if p is None or np.isnan(p):
        return ""
    if p < 0.001:
        return "<.001"
    return f"{p:.3f}".removeprefix("0") if p < 0.9995 else "1"
