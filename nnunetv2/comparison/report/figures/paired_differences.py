"""Differences of all pairs of methods, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.report.figures.style import height_of, label_rows, new_figure, wrapped
from nnunetv2.comparison.report.formatting import unit_of
from nnunetv2.comparison.report.palette import BETTER_COLOUR, FAINT_INK, INK, MIXED_COLOUR, WORSE_COLOUR, MethodStyle
from nnunetv2.comparison.results import BETTER, MIXED, WORSE, Comparison, PairResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMED = 15  # pairs shown with full method names; beyond that with letters
MOST_ROWS = 45  # per figure
_COLOURS = {BETTER: BETTER_COLOUR, WORSE: WORSE_COLOUR, MIXED: MIXED_COLOUR}


def draw_paired_differences(comparison: Comparison, styles: dict[str, MethodStyle]) -> Iterator[Figure]:
    """Draw a dot with an interval per pair in the primary metric, and thinner below it the interval of the methods.

    Yields figures of at most one page each, all on one scale.
    """
    pairs = comparison.pairs_of(comparison.settings.metrics[0])
    limits = _limits(pairs)
    for start in range(0, len(pairs), MOST_ROWS):
        figure = _page(pairs[start : start + MOST_ROWS], styles, len(pairs) <= MOST_NAMED, limits)
        metric = comparison.settings.metrics[0]
        unit = unit_of(metric, comparison.scores.length_unit)
        label = f"Difference in {metric}, first − second{f' ({unit})' if unit else ''}\n{_sides(metric)}"
        figure.axes[0].set_xlabel(label)
        yield figure


def _page(
    pairs: Sequence[PairResult], styles: dict[str, MethodStyle], is_named: bool, limits: tuple[float, float]
) -> Figure:
    labels = [_label(pair, styles, is_named) for pair in pairs]
    figure = new_figure(0.75 + len(pairs) * height_of(labels, 0.16))
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, pair in enumerate(pairs):
        _draw_pair(axes, row, pair)
    label_rows(axes, labels)
    axes.set_xlim(limits)
    axes.grid(axis="x")
    return figure


def _limits(pairs: Sequence[PairResult]) -> tuple[float, float]:
    ends = [0.0]
    for pair in pairs:
        ends.append(pair.mean_difference)
        for interval in (pair.trained.interval, pair.methods.interval):
            ends += [] if interval is None else [interval.low, interval.high]
    ends = [end for end in ends if math.isfinite(end)]
    space = 0.05 * (max(ends) - min(ends)) or 0.01
    return min(ends) - space, max(ends) + space


def _label(pair: PairResult, styles: dict[str, MethodStyle], is_named: bool) -> str:
    first, second = styles[pair.first].code, styles[pair.second].code
    if not is_named:
        return f"{first} − {second}"
    return f"{wrapped(f'{first}  {pair.first}', 48)}\n− {wrapped(f'{second}  {pair.second}', 48)}"


def _draw_pair(axes: Axes, row: int, pair: PairResult) -> None:
    colour = _COLOURS.get(pair.trained.verdict, FAINT_INK)
    interval = pair.trained.interval
    axes.plot(
        [interval.low, interval.high], [row - 0.06, row - 0.06], color=colour, linewidth=2.2, solid_capstyle="butt"
    )
    marker = "D" if pair.trained.verdict == MIXED else "o"
    axes.plot([pair.mean_difference], [row - 0.06], marker, color=colour, markersize=4.5)
    if pair.methods.interval is not None:
        ends = [pair.methods.interval.low, pair.methods.interval.high]
        axes.plot(ends, [row + 0.18, row + 0.18], color=FAINT_INK, linewidth=0.9, marker="|", markersize=4)


def _sides(metric: str) -> str:
    left, right = ("second", "first") if METRICS[metric].higher_is_better else ("first", "second")
    return f"← {left} is better        {right} is better →"
