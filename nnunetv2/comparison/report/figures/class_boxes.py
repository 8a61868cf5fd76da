"""Box and strip plots of every method, for the mean over classes and for each class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.report.figures.style import TALLEST, height_of, label_rows, new_figure, wrapped
from nnunetv2.comparison.report.palette import INK, MethodStyle
from nnunetv2.comparison.report.score_tables import metric_title
from nnunetv2.comparison.results import Comparison
from nnunetv2.comparison.statistics.trainings import method_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 11  # drawn beside the mean: those in which the methods differ most
MOST_POINTS = 200  # per strip; more are thinned out
_MOST_POINTS_IN_ALL = 6000  # limits the size of the SVG
_MOST_COLUMNS = 3


def draw_class_boxes(comparison: Comparison, styles: dict[str, MethodStyle]) -> Iterator[Figure]:
    """Yield figures of at most one page each, in the primary metric."""
    panels: list[str | None] = [None]
    if len(comparison.scores.classes) > 1:
        panels += drawn_classes(comparison)
    names = [wrapped(f"{style.code}  {name}", 24) for name, style in styles.items()]
    panel_height = 0.55 + len(names) * height_of(names, 0.26)
    rows_per_figure = max(1, int((TALLEST - 0.3) / panel_height))
    limits = _limits(comparison, panels)
    most_points = min(MOST_POINTS, _MOST_POINTS_IN_ALL // (len(panels) * len(names)))
    columns = 2 if len(panels) == 4 else min(_MOST_COLUMNS, len(panels))
    for start in range(0, len(panels), rows_per_figure * columns):
        shown = panels[start : start + rows_per_figure * columns]
        yield _page(comparison, styles, shown, names, panel_height, limits, columns, most_points)


def drawn_classes(comparison: Comparison, most: int = MOST_CLASSES) -> list[str]:
    """All classes, or the `most` with the largest range of method means; in dataset order."""
    classes = comparison.scores.classes
    if len(classes) <= most:
        return list(classes)
    metric = comparison.settings.metrics[0]

    def spread(name: str) -> float:
        means = [each.mean for each in comparison.summaries_of(metric, name) if not np.isnan(each.mean)]
        return max(means) - min(means) if means else 0.0

    chosen = sorted(classes, key=spread, reverse=True)[:most]
    return [name for name in classes if name in chosen]


def _page(
    comparison: Comparison,
    styles: dict[str, MethodStyle],
    panels: list[str | None],
    names: list[str],
    panel_height: float,
    limits: tuple[float, float],
    columns: int,
    most_points: int,
) -> Figure:
    rows = -(-len(panels) // columns)
    figure = new_figure(rows * panel_height + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, comparison, styles, name, most_points)
        axes.set_title(_title(comparison, name), loc="left")
        axes.set_xlim(limits)
    for axes in grid[:, 0]:
        label_rows(axes, names)
    figure.supxlabel(metric_title(comparison.settings.metrics[0], comparison.scores.length_unit), fontsize=8)
    return figure


def _title(comparison: Comparison, name: str | None) -> str:
    if name is not None:
        return wrapped(name, 28)
    classes = comparison.scores.classes
    return wrapped(classes[0], 28) if len(classes) == 1 else "Mean over classes"


def _draw_panel(
    axes: Axes, comparison: Comparison, styles: dict[str, MethodStyle], name: str | None, most_points: int
) -> None:
    metric = comparison.settings.metrics[0]
    rows = {method: row for row, method in enumerate(styles)}
    for method in method_scores(comparison.scores, metric, name):  # those that have the class
        row, style, values = rows[method.method], styles[method.method], method.case_means
        if not len(values):
            continue
        axes.boxplot(
            values,
            positions=[row],
            widths=0.62,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": style.colour + "30", "edgecolor": style.colour, "linewidth": 0.8},
            medianprops={"color": INK, "linewidth": 1.2},
            whiskerprops={"color": style.colour, "linewidth": 0.8},
            capprops={"color": style.colour, "linewidth": 0.8},
        )
        points = thinned(values, most_points)
        axes.scatter(points, row + _offsets(len(points)), s=4, color=style.colour, alpha=0.55, linewidths=0)
    if (mean := _reader_mean(comparison, name)) is not None:
        axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 2.5)))
    axes.grid(axis="x")
    axes.tick_params(axis="x", labelbottom=True)


def _reader_mean(comparison: Comparison, name: str | None) -> float | None:
    """Mean of the second reader in the primary metric; None without one, or if it lacks the class."""
    if comparison.reader is None:
        return None
    wanted = (comparison.settings.metrics[0], name)
    of_reader = (each for each in comparison.reader.summaries if (each.metric, each.class_name) == wanted)
    return next((each.mean for each in of_reader if np.isfinite(each.mean)), None)


def thinned(values: np.ndarray, most: int) -> np.ndarray:
    """Sort the values and thin them out evenly to at most `most`; minimum and maximum stay."""
    ascending = np.sort(values)
    if len(ascending) <= most:
        return ascending
    return ascending[np.linspace(0, len(ascending) - 1, most).round().astype(int)]


def _offsets(number: int) -> np.ndarray:
    """Deterministic jitter: multiples of the golden ratio modulo 1 keep neighbouring values apart."""
    return (np.arange(number) * 0.618034 % 1 - 0.5) * 0.44


def _limits(comparison: Comparison, panels: list[str | None]) -> tuple[float, float]:
    """One score range for all panels."""
    metric = comparison.settings.metrics[0]
    methods = [method for name in panels for method in method_scores(comparison.scores, metric, name)]
    readers = [_reader_mean(comparison, name) for name in panels]
    values = np.concatenate(
        [*(method.case_means for method in methods), [mean for mean in readers if mean is not None]]
    )
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    space = 0.03 * (high - low) or 0.05
    return low - space, high + space
