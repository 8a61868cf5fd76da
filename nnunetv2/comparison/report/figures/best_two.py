"""Scatter plot of the best method against the second best, case by case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunetv2.comparison.report.figures.style import new_figure, wrapped
from nnunetv2.comparison.report.leader import means_of
from nnunetv2.comparison.report.palette import FAINT_INK, MethodStyle
from nnunetv2.comparison.report.score_tables import metric_title
from nnunetv2.comparison.results import ALL_CLASSES, Comparison
from nnunetv2.comparison.statistics.trainings import method_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 3000  # limits the size of the SVG; larger sets are thinned evenly


def draw_best_two(comparison: Comparison, styles: dict[str, MethodStyle]) -> Figure | None:
    """Draw the primary metric, one point per case (mean over the trainings); on the diagonal both score alike."""
    metric = comparison.settings.metrics[0]
    order = means_of(comparison)
    if len(order) < 2:
        return None
    best, second = (styles[each.method] for each in order[:2])
    means = {each.method: each.case_means for each in method_scores(comparison.scores, metric, ALL_CLASSES)}
    x, y = (means[style.name] for style in (best, second))
    if not len(x):
        return None
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    space = 0.04 * (high - low) or 0.05
    kept = slice(None, None, -(-len(x) // MOST_POINTS))
    figure = new_figure(4.1, 4.1)
    axes = figure.subplots()
    axes.plot([low - space, high + space], [low - space, high + space], color=FAINT_INK, linewidth=0.8)
    axes.scatter(x[kept], y[kept], s=14, color=best.colour, alpha=0.75, linewidths=0)
    axes.set_xlim(low - space, high + space)
    axes.set_ylim(low - space, high + space)
    axes.set_aspect("equal")
    axes.grid()
    title = metric_title(metric, comparison.scores.length_unit)
    axes.set_xlabel(f"{wrapped(f'{best.code}  {best.name}', 44)}\n{title}")
    axes.set_ylabel(f"{wrapped(f'{second.code}  {second.name}', 44)}\n{title}")
    return figure
