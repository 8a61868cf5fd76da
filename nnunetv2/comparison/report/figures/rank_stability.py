"""How often each method takes each rank in bootstrap samples of the cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunetv2.comparison.report.figures.style import height_of, label_rows, new_figure, wrapped
from nnunetv2.comparison.report.palette import MethodStyle, ink_on
from nnunetv2.comparison.results import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_rank_stability(comparison: Comparison, styles: dict[str, MethodStyle]) -> Figure | None:
    """Draw a cell per method and rank in the primary metric; the opacity of the method's colour is the share."""
    from matplotlib.patches import Rectangle

    ranks = [rank for rank in comparison.ranks if rank.metric == comparison.settings.metrics[0]]
    if not ranks:
        return None
    ranks.sort(key=lambda rank: rank.mean_then_rank)
    labels = [wrapped(f"{styles[rank.method].code}  {rank.method}", 34) for rank in ranks]
    num_ranks = max(len(rank.frequencies) for rank in ranks)
    figure = new_figure(0.5 + len(ranks) * height_of(labels, 0.27))
    axes = figure.subplots()
    for row, rank in enumerate(ranks):
        for place, share in enumerate(rank.frequencies):
            corner = (place + 0.53, row - 0.46)
            axes.add_patch(
                Rectangle(corner, 0.94, 0.92, facecolor=styles[rank.method].colour, alpha=share, linewidth=0)
            )
            if share >= 0.005:
                colour = ink_on(styles[rank.method].colour, share)
                axes.text(place + 1, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    label_rows(axes, labels)
    axes.set_xlim(0.5, num_ranks + 0.5)
    axes.set_xticks(range(1, num_ranks + 1))
    axes.set_xlabel("Rank (share of bootstrap samples in %)")
    return figure
