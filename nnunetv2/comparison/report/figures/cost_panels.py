"""Score against each known cost, with the Pareto front of the methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.report.cost_statements import COST_KINDS, CostKind
from nnunetv2.comparison.report.figures.style import new_figure
from nnunetv2.comparison.report.formatting import amount
from nnunetv2.comparison.report.palette import FAINT_INK, INK, MethodStyle
from nnunetv2.comparison.report.score_tables import metric_title
from nnunetv2.comparison.results import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_APART = 15  # pixels between the letters of points that are labelled separately
_CORNERS = ((1, 1), (-1, 1), (1, -1), (-1, -1))  # candidate label positions around a point, in order of preference
_ENOUGH = 12  # pixels of free space around the middle of a label
_PANEL_HEIGHT = 2.5


def draw_cost_panels(comparison: Comparison, styles: dict[str, MethodStyle]) -> Figure | None:
    """Draw a panel per cost that is known and positive for at least two methods; None if there is none."""
    kinds = [(kind, known) for kind in COST_KINDS if len(known := _known(comparison, kind)) > 1]
    if not kinds:
        return None
    columns = min(2, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = new_figure(rows * _PANEL_HEIGHT, 7.2 if columns == 2 else 4.4)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(kinds) :]:
        axes.set_axis_off()
    for axes, (kind, known) in zip(grid.flat, kinds, strict=False):
        _draw_panel(axes, comparison, styles, known)
        axes.set_xlabel(kind.title)
    for axes in grid[:, 0]:
        axes.set_ylabel(metric_title(comparison.settings.metrics[0], comparison.scores.length_unit))
    # The layout must be final before labels are placed in screen coordinates.
    figure.draw_without_rendering()
    for axes, (_, known) in zip(grid.flat, kinds, strict=False):
        _write_letters(axes, comparison, styles, known)
    return figure


def _known(comparison: Comparison, kind: CostKind) -> dict[str, float]:
    means = _means(comparison)
    values = {cost.method: kind.value(cost) for cost in comparison.costs if cost.method in means}
    return {method: value for method, value in values.items() if value is not None and value > 0}


def _means(comparison: Comparison) -> dict[str, float]:
    summaries = comparison.summaries_of(comparison.settings.metrics[0])
    return {each.method: each.mean for each in summaries if np.isfinite(each.mean)}


def _draw_panel(axes: Axes, comparison: Comparison, styles: dict[str, MethodStyle], known: dict[str, float]) -> None:
    means = _means(comparison)
    front = pareto_front(known, means, METRICS[comparison.settings.metrics[0]].higher_is_better)
    axes.plot([known[name] for name in front], [means[name] for name in front], "--", color=FAINT_INK, linewidth=0.9)
    for summary in comparison.summaries_of(comparison.settings.metrics[0]):
        if summary.method not in known:
            continue
        style = styles[summary.method]
        ends = [summary.interval.low, summary.interval.high]
        axes.plot([known[summary.method]] * 2, ends, color=style.colour, linewidth=1)
        axes.plot([known[summary.method]], [summary.mean], style.marker, color=style.colour, markersize=6)
    axes.margins(y=0.12)
    axes.grid()
    _scale_cost_axis(axes, min(known.values()), max(known.values()))


def _scale_cost_axis(axes: Axes, lowest: float, highest: float) -> None:
    """Use a log scale for ranges beyond a factor of three; on a shorter one it would show a single round number."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    as_amount = FuncFormatter(lambda value, _: amount(value))
    if highest < 3 * lowest:
        space = 0.12 * (highest - lowest) + 0.05 * highest
        axes.set_xlim(lowest - space, highest + space)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(as_amount)
        return
    space = (highest / lowest) ** 0.12
    axes.set_xscale("log")
    axes.set_xlim(lowest / space, highest * space)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest < 100 * lowest else (1,)))
    axes.xaxis.set_major_formatter(as_amount)
    axes.xaxis.set_minor_formatter(NullFormatter())


def _write_letters(axes: Axes, comparison: Comparison, styles: dict[str, MethodStyle], known: dict[str, float]) -> None:
    """Label the points away from their neighbours; close points share one label."""
    means = _means(comparison)
    places = {method: axes.transData.transform((cost, means[method])) for method, cost in known.items()}
    groups: list[tuple[np.ndarray, list[str]]] = []
    for method, place in places.items():
        near = next((group for group in groups if np.abs(group[0] - place).max() < _APART), None)
        if near is None:
            groups.append((place, [method]))
        else:
            near[1].append(method)
    for place, methods in groups:
        text = ", ".join(styles[method].code for method in methods)
        point = (known[methods[0]], means[methods[0]])
        others = [places[method] - place for method in places if method != methods[0]]
        across, up = max(_CORNERS, key=lambda corner: _room(corner, len(text), others))
        axes.annotate(
            text,
            point,
            (5 * across, 4 if up > 0 else -10),
            textcoords="offset points",
            ha="left" if across > 0 else "right",
            fontsize=8,
            color=INK,
            fontweight="bold",
        )


def _room(corner: tuple[int, int], num_letters: int, others: list[np.ndarray]) -> float:
    """Distance from a label's middle to the nearest other point, capped at _ENOUGH so that roomy corners tie."""
    middle = np.array([corner[0] * (5 + 3 * num_letters), corner[1] * 7])
    return min([_ENOUGH, *(float(np.abs(other - middle).max()) for other in others)])


def pareto_front(costs: dict[str, float], scores: dict[str, float], higher_is_better: bool) -> list[str]:
    """Methods in order of cost, keeping those that score better than every cheaper one."""
    sign = 1 if higher_is_better else -1
    front: list[str] = []
    for method in sorted(costs, key=lambda name: (costs[name], -sign * scores[name])):
        if not front or sign * scores[method] > sign * scores[front[-1]]:
            front.append(method)
    return front
