"""Learning curves: pseudo Dice of all methods in one panel, and the validation loss of each method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.report.figures.style import new_figure, wrapped
from nnunetv2.comparison.report.palette import MethodStyle
from nnunetv2.comparison.results import Comparison, LearningCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 150  # per curve; longer ones are averaged over groups of epochs
_COLUMNS = 4


def draw_pseudo_dice(comparison: Comparison, styles: dict[str, MethodStyle]) -> Figure | None:
    """Draw the mean of each method over folds and runs, with their range as a band."""
    figure = new_figure(3.1)
    axes = figure.subplots()
    drawn = [_draw_band(axes, style, _curves(comparison, style.name), "pseudo_dice") for style in styles.values()]
    axes.set_xlabel("Epoch")
    axes.set_ylabel("Pseudo Dice on validation patches")
    axes.grid()
    return figure if any(drawn) else None


def draw_losses(comparison: Comparison, styles: dict[str, MethodStyle]) -> Figure | None:
    """Draw a panel per method with its own scale, since methods use different losses."""
    shown = [style for style in styles.values() if _has_values(_curves(comparison, style.name), "val_loss")]
    if not shown:
        return None
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(1.75 * rows + 0.2, 7.2 if columns > 2 else 2.8 * columns)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, style in zip(grid.flat, shown, strict=False):
        _draw_band(axes, style, _curves(comparison, style.name), "val_loss")
        axes.set_title(wrapped(f"{style.code}  {style.name}", 22), loc="left", fontsize=6.5)
        axes.grid()
    figure.supxlabel("Epoch", fontsize=8)
    figure.supylabel("Validation loss", fontsize=8)
    return figure


def _curves(comparison: Comparison, method: str) -> list[LearningCurve]:
    return [curve for curve in comparison.curves if curve.method == method and curve.epochs]


def _has_values(curves: Sequence[LearningCurve], quantity: str) -> bool:
    return any(np.isfinite(getattr(curve, quantity)).any() for curve in curves)


def _draw_band(axes: Axes, style: MethodStyle, curves: Sequence[LearningCurve], quantity: str) -> bool:
    if not _has_values(curves, quantity):
        return False
    epochs, values = grouped_values(curves, quantity)
    known = np.isfinite(values).any(axis=0)
    epochs, values = epochs[known], values[:, known]
    axes.fill_between(
        epochs, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=style.colour, alpha=0.15, linewidth=0
    )
    every = max(1, len(epochs) // 6)
    axes.plot(epochs, np.nanmean(values, axis=0), color=style.colour, linewidth=1.3)
    axes.plot(epochs[::every], np.nanmean(values, axis=0)[::every], style.marker, color=style.colour, markersize=3.5)
    return True


def grouped_values(curves: Sequence[LearningCurve], quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle epoch of each group of epochs (G,), and the group means (C, G) of C curves.

    A curve is NaN in groups where it has no values.
    """
    last = max(max(curve.epochs) for curve in curves)
    size = last // MOST_POINTS + 1
    groups = np.arange(last // size + 1)
    sums, counts = np.zeros((2, len(curves), len(groups)))
    for row, curve in enumerate(curves):
        values = np.asarray(getattr(curve, quantity), dtype=float)
        known = np.isfinite(values)
        places = np.asarray(curve.epochs)[known] // size
        np.add.at(sums[row], places, values[known])
        np.add.at(counts[row], places, 1)
    with np.errstate(invalid="ignore"):
        return groups * size + (size - 1) / 2, sums / counts
