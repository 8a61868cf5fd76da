"""All figures of a report in order, as SVG with titles and captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunetv2.comparison.report.figures.best_two import draw_best_two
from nnunetv2.comparison.report.figures.class_boxes import MOST_CLASSES, draw_class_boxes
from nnunetv2.comparison.report.figures.cost_panels import draw_cost_panels
from nnunetv2.comparison.report.figures.critical_difference import (
    critical_difference_caption,
    draw_critical_difference,
)
from nnunetv2.comparison.report.figures.curve_panels import draw_losses, draw_pseudo_dice
from nnunetv2.comparison.report.figures.paired_differences import MOST_NAMED, draw_paired_differences
from nnunetv2.comparison.report.figures.rank_stability import draw_rank_stability
from nnunetv2.comparison.report.figures.significance_map import draw_significance_map
from nnunetv2.comparison.report.figures.style import report_style, svg_of
from nnunetv2.comparison.report.figures.volume_agreement import (
    draw_volume_agreement,
    drawn_blocks,
    points_apart,
)
from nnunetv2.comparison.report.formatting import coverage
from nnunetv2.comparison.report.palette import MethodStyle
from nnunetv2.comparison.results import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A rendered figure, ready to be embedded."""

    title: str
    caption: str
    svg: str
    width: float
    """inches"""
    has_legend: bool = False
    """whether methods are identified by letter or colour only, so that a legend is needed"""


def draw_all(comparison: Comparison, styles: dict[str, MethodStyle]) -> list[Drawing]:
    """Render the figures for which there is data."""
    with report_style():
        return [
            Drawing(title, caption, svg_of(figure), float(figure.get_figwidth()), has_legend)
            for figure, title, caption, has_legend in _figures(comparison, styles)
            if figure is not None
        ]


def _figures(comparison: Comparison, styles: dict[str, MethodStyle]) -> Iterator[tuple[Figure | None, str, str, bool]]:
    metric, interval = comparison.settings.metrics[0], coverage(comparison.settings)
    yield from _difference_figures(comparison, styles)
    yield from _box_figures(comparison, styles)
    yield (
        draw_rank_stability(comparison, styles),
        f"Rank stability in {metric}",
        "How often the mean of a method takes each rank when the cases are resampled.",
        False,
    )
    yield (
        draw_significance_map(comparison, styles),
        f"Significance map in {metric}",
        "Blue: the method of the row is better; orange: worse; violet with crossed lines: mixed, one is better by the "
        "ranks of the differences, the other in the mean; grey: no difference is shown; hatched: not testable.",
        False,
    )
    yield (
        draw_critical_difference(comparison, styles),
        f"Critical differences in {metric}",
        critical_difference_caption(comparison, styles),
        False,
    )
    yield (
        draw_cost_panels(comparison, styles),
        f"{metric} against cost",
        f"Mean with {interval}; costs that are known. The dashed front joins the methods that no cheaper one equals.",
        True,
    )
    yield (
        draw_pseudo_dice(comparison, styles),
        "Learning curves",
        f"Mean over folds and runs, and their range.{_without_curves(comparison)}",
        True,
    )
    yield (
        draw_losses(comparison, styles),
        "Validation loss",
        "Mean over folds and runs, and their range. Losses of different methods are not on one scale.",
        False,
    )
    yield (
        draw_best_two(comparison, styles),
        f"The two best methods by {metric}, case by case",
        "One point per case, the mean over its classes and the trainings; on the line both score alike.",
        False,
    )
    yield from _volume_figures(comparison, styles)


def _without_curves(comparison: Comparison) -> str:
    drawn = {curve.method for curve in comparison.curves}
    missing = [method for method in comparison.scores.methods if method not in drawn]
    return f" Not recorded: {', '.join(missing)}." if missing else ""


def _difference_figures(
    comparison: Comparison, styles: dict[str, MethodStyle]
) -> Iterator[tuple[Figure, str, str, bool]]:
    metric, interval = comparison.settings.metrics[0], coverage(comparison.settings)
    caption = (
        f"Mean difference over the cases with its {interval} for these trained models (dot, thick line), and the "
        f"{interval} of the methods where it can be tested (thin line). Coloured where the trained models differ after "
        "Holm: blue where the first is better, orange where it is worse, violet with a diamond where one is better by "
        "the ranks of the differences and the other in the mean. Intervals are of each pair alone and not adjusted."
    )
    has_legend = len(comparison.pairs_of(metric)) > MOST_NAMED
    for number, figure in enumerate(draw_paired_differences(comparison, styles)):
        yield figure, f"Paired differences in {metric}{_continued(number)}", caption, has_legend


def _box_figures(comparison: Comparison, styles: dict[str, MethodStyle]) -> Iterator[tuple[Figure, str, str, bool]]:
    num_classes = len(comparison.scores.classes)
    title = f"{comparison.settings.metrics[0]}{' per class' if num_classes > 1 else ', case by case'}"
    caption = (
        "One point per case, the mean over the trainings. Box: quartiles and median; whiskers reach the furthest "
        "points within 1.5 times its length."
    )
    if comparison.reader is not None:
        caption += f" Dashed line: mean of {comparison.reader.name}, a second reading of the same cases."
    if num_classes > MOST_CLASSES:
        caption += f" {num_classes - MOST_CLASSES} classes in which the methods differ less are in the tables."
    for number, figure in enumerate(draw_class_boxes(comparison, styles)):
        yield figure, f"{title}{_continued(number)}", caption, False


def _volume_figures(comparison: Comparison, styles: dict[str, MethodStyle]) -> Iterator[tuple[Figure, str, str, bool]]:
    blocks, num_classes = drawn_blocks(comparison), len(comparison.scores.classes)
    caption = (
        "Bland-Altman: one point per case whose reference has the class, for all methods alike; false volumes in other "
        "cases are in the detection table. Predicted is the mean over the trainings of a method. Black line: bias, the "
        "mean difference; dashed: limits of agreement, bias ± 1.96 standard deviations over the cases; both in numbers "
        "above each panel. Panels of a class have the same axes."
    )
    if points_apart(blocks) > 1:
        caption += " Some of the points within the limits are left out; lines rest on all."
    if len(blocks) < num_classes:
        caption += (
            f" Not drawn ({num_classes - len(blocks)}): classes in which the methods differ less in "
            f"{comparison.settings.metrics[0]}, or that no reference has; they are in volumes.csv."
        )
    for number, figure in enumerate(draw_volume_agreement(comparison, styles)):
        yield figure, f"Predicted and reference volumes{_continued(number)}", caption, False


def _continued(number: int) -> str:
    return " (continued)" if number else ""
