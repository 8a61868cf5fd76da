"""What figures choose to show, and what their captions say of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from nnunetv2.comparison.report.figures.cost_panels import draw_cost_panels
from nnunetv2.comparison.report.figures.critical_difference import (
    bar_levels,
    critical_difference_caption,
    draw_critical_difference,
)
from nnunetv2.comparison.report.figures.paired_differences import draw_paired_differences
from nnunetv2.comparison.report.figures.significance_map import draw_significance_map
from nnunetv2.comparison.report.figures.style import report_style, svg_of
from nnunetv2.comparison.report.figures.volume_agreement import (
    draw_volume_agreement,
    drawn_blocks,
    points_apart,
    shown_points,
)
from nnunetv2.comparison.report.palette import MIXED_COLOUR, method_styles
from nnunetv2.comparison.results import BETTER, MIXED, NO_DIFFERENCE, NOT_TESTABLE, Comparison, Interval, MethodCost
from nnunetv2.comparison.statistics.volume_agreement import VolumeAgreement
from tests.comparison.report.planted import METHODS, planted


def with_verdicts(comparison: Comparison, verdicts: dict[str, str]) -> Comparison:
    """Verdicts on trained models by the letters of a pair; all others do not differ."""
    styles = method_styles(comparison.scores.methods)

    def judged(pair):
        verdict = verdicts.get(styles[pair.first].code + styles[pair.second].code, NO_DIFFERENCE)
        return replace(pair, trained=replace(pair.trained, verdict=verdict))

    return replace(comparison, pairs=tuple(judged(pair) for pair in comparison.pairs))


def caption_of(comparison: Comparison) -> str:
    return critical_difference_caption(comparison, method_styles(comparison.scores.methods))


def test_critical_differences_need_three_methods_and_every_pair(five: Comparison, smallest: Comparison) -> None:
    assert draw_critical_difference(smallest, method_styles(smallest.scores.methods)) is None
    to_baseline = replace(five, settings=replace(five.settings, baseline=METHODS[0]))
    assert draw_critical_difference(to_baseline, method_styles(METHODS[:5])) is None
    assert draw_critical_difference(replace(five, ranks=()), method_styles(METHODS[:5])) is None


def test_caption_tells_what_bars_cannot_show(five: Comparison) -> None:
    alike = caption_of(with_verdicts(five, {}))
    assert "A bar joins neighbours" in alike
    assert "testable" not in alike
    assert "Not shown" not in alike
    apart = caption_of(with_verdicts(five, {"AB": BETTER, "BC": BETTER, "AD": NOT_TESTABLE}))
    assert "Pairs that are not testable count as not shown to differ (1 of 10)." in apart
    assert apart.endswith("because of a method between them: A–C, A–D, A–E, B–D and B–E.")
    mixed = caption_of(with_verdicts(five, {"AB": MIXED}))
    assert "Pairs that differ, but not in one direction, count as differing (1 of 10)." in mixed
    assert mixed.endswith("because of a method between them: A–C, A–D and A–E.")
    letters = [first + second for first, second in combinations("ABCDE", 2)]
    assert "No methods are joined by a bar" in caption_of(with_verdicts(five, dict.fromkeys(letters, BETTER)))


@pytest.mark.slow
def test_mixed_pairs_have_a_colour_of_their_own(five: Comparison) -> None:
    styles = method_styles(five.scores.methods)

    def drawn(comparison: Comparison) -> tuple[str, str]:
        (differences,) = draw_paired_differences(comparison, styles)
        return svg_of(draw_significance_map(comparison, styles)), svg_of(differences)

    with report_style():
        for svg, other in zip(
            drawn(with_verdicts(five, {"AB": MIXED})), drawn(with_verdicts(five, {"AB": BETTER})), strict=True
        ):
            assert MIXED_COLOUR.lower() in svg.lower()
            assert MIXED_COLOUR.lower() not in other.lower()


@pytest.mark.parametrize("gflops_of_second", [20.2, 20.4, 20.6])
@pytest.mark.parametrize("score_of_second", [0.82, 0.83, 0.84])
def test_letters_do_not_lie_on_points(five: Comparison, gflops_of_second: float, score_of_second: float) -> None:
    scores = dict(zip(METHODS, (0.815, score_of_second, 0.9, 0.75, 0.7), strict=False))
    gflops = dict(zip(METHODS, (19.5, gflops_of_second, 15.2, 29.9, 13.8), strict=False))
    costs = tuple(MethodCost(method, gflops_per_patch=value) for method, value in gflops.items())
    summaries = tuple(replace(each, mean=scores[each.method]) for each in five.summaries)
    with report_style():
        figure = draw_cost_panels(replace(five, costs=costs, summaries=summaries), method_styles(METHODS[:5]))
    (axes,) = figure.axes
    assert sorted(letter for text in axes.texts for letter in text.get_text().split(", ")) == list("ABCDE")
    for method, value in gflops.items():
        point = axes.transData.transform((value, scores[method]))
        assert not any(text.get_window_extent().padded(2).contains(*point) for text in axes.texts)


def test_bars_share_a_level_where_they_are_apart() -> None:
    ranks = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert [level for _, level in bar_levels([("a", "b"), ("b", "c"), ("c", "d")], ranks)] == [0, 1, 0]
    assert [level for _, level in bar_levels([("a", "b", "c"), ("b", "c", "d")], ranks)] == [0, 1]
    near = ranks | {"c": 2.01}
    assert [level for _, level in bar_levels([("a", "b"), ("c", "d")], near)] == [0, 1]


def test_volumes_show_the_classes_that_fit_on_a_page() -> None:
    names = tuple(f"class {number}" for number in range(4))
    assert [block[0].class_name for block in drawn_blocks(planted(2, 1, 5, names[:3], metrics=("Dice",)))] == [
        *names[:3]
    ]
    many = planted(6, 1, 5, names, metrics=("Dice",))
    blocks = drawn_blocks(many)
    assert len(blocks) == 3
    assert all([each.method for each in block] == list(METHODS[:6]) for block in blocks)
    assert points_apart(blocks) == 1


def test_points_beyond_the_limits_are_never_left_out() -> None:
    differences = np.array([0.0, 1, 2, 90, 1, 0])
    agreement = VolumeAgreement("a", "organ", differences, differences, 1.0, Interval(-3, 5))
    assert shown_points(agreement, 4).tolist() == [True, False, False, True, True, False]
    unlimited = replace(agreement, limits=Interval(float("nan"), float("nan")))
    assert shown_points(unlimited, 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("num_methods", [3, 7])
def test_figures_are_the_same_every_time(num_methods: int) -> None:
    comparison = planted(num_methods, 1, 12, metrics=("Dice",), gap=0.001)
    styles = method_styles(comparison.scores.methods)

    def drawn() -> list[str]:
        return [
            svg_of(draw_critical_difference(comparison, styles)),
            *map(svg_of, draw_volume_agreement(comparison, styles)),
        ]

    with report_style():
        assert drawn() == drawn()
