"""Bland-Altman plots of predicted against reference volumes: difference over mean, case by case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.report.figures.class_boxes import drawn_classes
from nnunetv2.comparison.report.figures.style import WIDTH, new_figure, wrapped
from nnunetv2.comparison.report.formatting import amount
from nnunetv2.comparison.report.palette import FAINT_INK, INK, MethodStyle
from nnunetv2.comparison.results import Comparison
from nnunetv2.comparison.statistics.volume_agreement import VolumeAgreement, volume_agreement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS_IN_ALL = 6000  # limits the size of the SVG; more are thinned out
_MOST_COLUMNS = 5
_MOST_ROWS = 6  # per page
_ROW_HEIGHTS = ((1, 2.1), (3, 1.8), (_MOST_ROWS, 1.36))  # (largest number of rows, inches per row)

Block = list[VolumeAgreement]  # one class, all methods


def draw_volume_agreement(comparison: Comparison, styles: dict[str, MethodStyle]) -> Iterator[Figure]:
    """Draw a panel per class and method, at most one page per figure; panels of a class share their axes.

    Source: Bland and Altman, "Statistical methods for assessing agreement between two methods of clinical measurement",
    The Lancet 327 (1986), figure 2.
    """
    blocks = drawn_blocks(comparison)
    if not blocks:
        return
    num_rows = -(-len(styles) // _MOST_COLUMNS)
    columns = -(-len(styles) // num_rows)
    every = points_apart(blocks)
    rows = [(block, start) for block in blocks for start in range(0, len(styles), columns)]
    for first in range(0, len(rows), _MOST_ROWS):
        yield _page(rows[first : first + _MOST_ROWS], columns, styles, every, comparison.scores.volume_unit)


def drawn_blocks(comparison: Comparison) -> list[Block]:
    """Classes that fit on one page: present in some reference and with the largest score differences, in order."""
    num_rows = -(-len(comparison.scores.methods) // _MOST_COLUMNS)
    of_class: dict[str, Block] = {}
    for each in volume_agreement(comparison.scores):
        of_class.setdefault(each.class_name, []).append(each)
    names = drawn_classes(comparison, max(1, _MOST_ROWS // num_rows))
    return [of_class[name] for name in names if len(of_class[name][0].means)]


def points_apart(blocks: Sequence[Block]) -> int:
    """Stride for thinning the points; 1 draws all of them."""
    return -(-sum(len(each.means) for block in blocks for each in block) // MOST_POINTS_IN_ALL)


def shown_points(agreement: VolumeAgreement, every: int) -> np.ndarray:
    """(N,) mask of the drawn cases: one in `every`, plus all beyond the limits of agreement."""
    differences, limits = agreement.differences, agreement.limits
    is_beyond = (differences < limits.low) | (differences > limits.high)
    return is_beyond | (np.arange(len(differences)) % every == 0)


def _page(
    rows: Sequence[tuple[Block, int]], columns: int, styles: dict[str, MethodStyle], every: int, unit: str
) -> Figure:
    height = next(height for most, height in _ROW_HEIGHTS if len(rows) <= most)
    figure = new_figure(len(rows) * height + 0.45, min(WIDTH, 0.6 + 2.6 * columns))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for panels, (block, start) in zip(grid, rows, strict=True):
        limits = _limits(block)
        panels[0].set_ylabel(wrapped(block[0].class_name, 16), fontsize=7.5)
        for axes, agreement in zip(panels, block[start : start + columns], strict=False):
            axes.set_axis_on()
            _draw_panel(axes, agreement, styles[agreement.method], every)
            _scale(axes, *limits, has_numbers=axes is panels[0])
            name = _name(styles[agreement.method], 92 // columns, is_whole=block is rows[0][0])
            axes.set_title(f"{name}\n{_in_numbers(agreement)}", loc="left", fontsize=6.5)
    figure.supxlabel(f"Mean of predicted and reference volume ({unit})", fontsize=8)
    figure.supylabel("Predicted − reference volume", fontsize=8)
    return figure


def _name(style: MethodStyle, width: int, *, is_whole: bool) -> str:
    return wrapped(f"{style.code}  {style.name}", width) if is_whole else style.code


def _in_numbers(agreement: VolumeAgreement) -> str:
    bias, limits = agreement.bias, agreement.limits
    if np.isnan(limits.low):
        return _signed_amount(bias)
    return f"{_signed_amount(bias)} [{_signed_amount(limits.low)}, {_signed_amount(limits.high)}]"


def _signed_amount(value: float) -> str:
    return f"−{amount(-value)}" if value < 0 else amount(value)


def _draw_panel(axes: Axes, agreement: VolumeAgreement, style: MethodStyle, every: int) -> None:
    axes.axhline(0, color=FAINT_INK, linewidth=0.6)
    shown = shown_points(agreement, every)
    axes.scatter(agreement.means[shown], agreement.differences[shown], s=7, color=style.colour, alpha=0.6, linewidths=0)
    axes.axhline(agreement.bias, color=INK, linewidth=1)
    for limit in (agreement.limits.low, agreement.limits.high):
        if np.isfinite(limit):
            axes.axhline(limit, color=INK, linewidth=0.8, linestyle=(0, (4, 2.5)))
    axes.grid()


def _limits(block: Block) -> tuple[tuple[float, float], tuple[float, float]]:
    """Shared ranges of mean volumes and of differences for all methods."""
    heights = [np.append(each.differences, [each.limits.low, each.limits.high, 0.0]) for each in block]
    return _with_space(np.concatenate([each.means for each in block])), _with_space(np.concatenate(heights))


def _with_space(values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    space = 0.06 * (high - low) or 0.06 * abs(high) or 0.05
    return low - space, high + space


def _scale(axes: Axes, across: tuple[float, float], up: tuple[float, float], *, has_numbers: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(across)
    axes.set_ylim(up)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: _signed_amount(value)))
    axes.tick_params(labelsize=6.5, labelleft=has_numbers)
