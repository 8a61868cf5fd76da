"""Critical-difference diagram: methods by mean rank, with bars joining those not shown to differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.report.figures.style import height_of, new_figure, wrapped
from nnunetv2.comparison.report.formatting import listed, plain_number
from nnunetv2.comparison.report.palette import FAINT_INK, INK, MethodStyle
from nnunetv2.comparison.results import DIFFERENT, MIXED, NOT_TESTABLE, Comparison
from nnunetv2.comparison.statistics.ranking import groups_without_difference, pairs_in_no_group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_METHODS = 3
_MOST_PAIRS = 6  # listed in the caption
_FIRST_BAR, _BAR_STEP = 0.14, 0.1  # inches below the axis
_HEAD = 0.48  # inches for the axis with its numbers and title
_SIDE = 0.17  # of the axis width, for the lines to the names
_OVERHANG = 0.012  # of the axis width, by which a bar extends beyond its range


@dataclass(frozen=True)
class _Row:
    method: str
    label: str
    height: float
    """inches below the axis"""


def draw_critical_difference(comparison: Comparison, styles: dict[str, MethodStyle]) -> Figure | None:
    """Mean ranks in the primary metric, best on the left; None for fewer than MIN_METHODS or with a baseline.

    Source: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), figure 1.
    """
    ranks = _case_ranks(comparison)
    if len(ranks) < MIN_METHODS or comparison.settings.baseline is not None:
        return None
    bars = bar_levels(groups_without_difference(ranks, _differing(comparison)), ranks)
    order = sorted(ranks, key=lambda method: ranks[method])
    num_left = -(-len(order) // 2)
    top = _FIRST_BAR + _BAR_STEP * (max((level for _, level in bars), default=-1) + 1) + 0.04
    left = _rows(order[:num_left], styles, top)
    # Worst method on top, so that the lines to the names on the right do not cross.
    right = _rows(order[num_left:][::-1], styles, top)
    bottom = max(side[-1].height for side in (left, right)) + 0.2
    figure = new_figure(bottom + _HEAD)
    axes = figure.subplots()
    low, high = _scale(axes, list(ranks.values()))
    space = _SIDE * (high - low)
    for side, rows, edge in ((axes, left, low - space), (axes.twinx(), right, high + space)):
        _write_names(side, rows, bottom)
        # Longest line first: at equal ranks, the shorter ones stay visible on top of it.
        for row in reversed(rows):
            _draw_leader(axes, styles[row.method], ranks[row.method], row.height, edge)
    axes.set_xlim(low - space, high + space)
    for members, level in bars:
        _draw_bar(axes, members, ranks, _FIRST_BAR + _BAR_STEP * level, _OVERHANG * (high - low))
    return figure


def critical_difference_caption(comparison: Comparison, styles: dict[str, MethodStyle]) -> str:
    """Explain the axis and the bars, and list what the bars cannot show."""
    ranks, differing = _case_ranks(comparison), _differing(comparison)
    groups = groups_without_difference(ranks, differing)
    parts = [
        "Mean over the cases of the rank in a case, 1 is best; equal scores share their mean rank.",
        "A bar joins neighbours among which no pair of these trained models is shown to differ after Holm, which is no "
        "proof that they are equal."
        if groups
        else "No methods are joined by a bar: all neighbours are shown to differ as trained models after Holm.",
    ]
    pairs = comparison.pairs_of(comparison.settings.metrics[0])
    if untested := sum(pair.trained.verdict == NOT_TESTABLE for pair in pairs):
        parts.append(f"Pairs that are not testable count as not shown to differ ({untested} of {len(pairs)}).")
    if mixed := sum(pair.trained.verdict == MIXED for pair in pairs):
        parts.append(f"Pairs that differ, but not in one direction, count as differing ({mixed} of {len(pairs)}).")
    if apart := pairs_in_no_group(ranks, differing, groups):
        names = [f"{styles[first].code}–{styles[second].code}" for first, second in apart]
        if len(names) > _MOST_PAIRS:
            names = [*names[:_MOST_PAIRS], f"{len(names) - _MOST_PAIRS} more"]
        parts.append(f"Not shown to differ, but not joined because of a method between them: {listed(names)}.")
    return " ".join(parts)


def _case_ranks(comparison: Comparison) -> dict[str, float]:
    metric = comparison.settings.metrics[0]
    return {rank.method: rank.rank_then_mean for rank in comparison.ranks if rank.metric == metric}


def _differing(comparison: Comparison) -> set[frozenset[str]]:
    pairs = comparison.pairs_of(comparison.settings.metrics[0])
    return {frozenset((pair.first, pair.second)) for pair in pairs if pair.trained.verdict in DIFFERENT}


def bar_levels(groups: Sequence[tuple[str, ...]], ranks: Mapping[str, float]) -> list[tuple[tuple[str, ...], int]]:
    """Stack the bars: each group goes to the first level, 0 on top, where it clears the earlier bars."""
    apart = 4 * _OVERHANG * (max(ranks.values()) - min(ranks.values()))
    ends: list[float] = []
    result = []
    for group in groups:
        first, last = ranks[group[0]], ranks[group[-1]]
        level = next((level for level, end in enumerate(ends) if end + apart < first), len(ends))
        ends[level : level + 1] = [last]
        result.append((group, level))
    return result


def _rows(methods: Sequence[str], styles: dict[str, MethodStyle], top: float) -> list[_Row]:
    rows = []
    for method in methods:
        label = wrapped(f"{styles[method].code}  {method}", 26)
        half = height_of([label], 0.27) / 2
        rows.append(_Row(method, label, top + half))
        top += 2 * half
    return rows


def _scale(axes: Axes, ranks: Sequence[float]) -> tuple[float, float]:
    """Draw the axis between the integers enclosing the ranks, and return both ends."""
    low, high = math.floor(min(ranks)), math.ceil(max(ranks))
    if low == high:
        low, high = 1, len(ranks)
    step = next((step for most, step in ((1, 0.2), (2, 0.5), (12, 1)) if high - low <= most), (high - low) // 6)
    ticks = np.arange(low, high + step / 2, step)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("Mean rank")
    axes.spines["top"].set_visible(True)
    axes.spines["top"].set_bounds(low, high)
    return low, high


def _write_names(axes: Axes, rows: Sequence[_Row], bottom: float) -> None:
    axes.set_ylim(bottom, 0)
    axes.set_yticks([row.height for row in rows], [row.label for row in rows], linespacing=1.25)
    axes.tick_params(axis="y", length=0, pad=7)
    for name in ("left", "right", "bottom"):
        axes.spines[name].set_visible(False)


def _draw_leader(axes: Axes, style: MethodStyle, rank: float, height: float, edge: float) -> None:
    """Draw the line from the axis down and across to the name, labelled with the rank."""
    axes.plot([rank, rank, edge], [0, height, height], color=style.colour, linewidth=0.9, solid_joinstyle="miter")
    axes.plot([edge], [height], style.marker, color=style.colour, markersize=4.5, clip_on=False)
    is_left = edge < rank
    axes.annotate(
        plain_number(rank, 2),
        (edge, height),
        (5 if is_left else -5, 2.5),
        textcoords="offset points",
        ha="left" if is_left else "right",
        fontsize=6.5,
        color=FAINT_INK,
    )


def _draw_bar(axes: Axes, members: Sequence[str], ranks: Mapping[str, float], height: float, overhang: float) -> None:
    """Draw a bar slightly longer than its range, so that equal ranks show one, without touching other methods."""
    first, last = ranks[members[0]], ranks[members[-1]]
    others = [rank for method, rank in ranks.items() if method not in members]
    before = min([overhang, *(0.4 * (first - rank) for rank in others if rank < first)])
    after = min([overhang, *(0.4 * (rank - last) for rank in others if rank > last)])
    axes.plot([first - before, last + after], [height] * 2, color=INK, linewidth=3, solid_capstyle="butt", zorder=3)
