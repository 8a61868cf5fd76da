"""Summaries, pairs, ranks and detection of whole score tables."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from nnunetv2.comparison.results import BETTER, MIXED, NO_DIFFERENCE, NOT_TESTABLE, WORSE
from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics import detection, pairs, ranks, summaries
from nnunetv2.errors import UsageError
from tests.comparison.statistics.tables import random_scores, score_table

DICE = CompareSettings(metrics=("Dice",), num_resamples=300)


def everything(table: ScoreTable, settings: CompareSettings) -> dict[str, str]:
    """All results, each by its text, so that every bit counts."""
    found = (*summaries(table, settings), *pairs(table, settings), *detection(table), *sum(ranks(table, settings), ()))
    names = ("method", "first", "second", "metric", "class_name")
    return {repr((type(each), *(getattr(each, name, "") for name in names))): repr(each) for each in found}


def with_runs_and_cases(table: ScoreTable, runs: list[int], cases: list[int]) -> ScoreTable:
    return replace(
        table,
        runs=tuple(table.runs[run] for run in runs),
        cases=tuple(table.cases[case] for case in cases),
        values={name: values[runs][:, cases] for name, values in table.values.items()},
        num_reference=table.num_reference[cases],
        num_predicted=table.num_predicted[runs][:, cases],
        voxel_volume=table.voxel_volume[cases],
    )


def test_order_of_runs_and_cases_changes_no_bit():
    rng = np.random.default_rng(0)
    table = score_table(
        random_scores({"a": 0.8, "b": 0.82, "c": 0.8}, 3, 12, 2),
        ("Dice", "HD95"),
        ("organ", "lesion"),
        num_reference=rng.integers(0, 2, (12, 2)),
        num_predicted=rng.integers(0, 3, (9, 12, 2)),
    )
    settings = replace(DICE, metrics=("Dice", "HD95"))
    expected = everything(table, settings)
    assert len(expected) == 3 * 6 + 3 * 6 + 6 + 6 + 2
    shuffled = with_runs_and_cases(table, [2, 0, 1, 5, 4, 3, 7, 8, 6], rng.permutation(12).tolist())
    assert everything(shuffled, settings) == expected
    assert everything(table, replace(settings, seed=1)) != expected


def test_another_method_changes_no_interval_and_no_test_of_the_others():
    scores = random_scores({"a": 0.8, "b": 0.82, "c": 0.8}, 3, 12)
    (alone,) = pairs(score_table({name: scores[name] for name in "ab"}), DICE)[:1]
    among = next(pair for pair in pairs(score_table(scores), DICE) if pair.first == "a" and pair.second == "b")
    assert among.trained.interval == alone.trained.interval
    assert among.trained.p == alone.trained.p
    assert among.trained.p_holm >= alone.trained.p_holm


def test_copies_do_not_differ_and_share_their_rank():
    scores = random_scores({"a": 0.8}, 3, 25)["a"]
    table = score_table({"a": scores, "b": scores[[2, 0, 1]], "worse": scores - 0.1})
    copies = pairs(table, DICE)[0]
    assert (copies.trained.p, copies.trained.p_holm, copies.trained.verdict) == (1, 1, NO_DIFFERENCE)
    assert (copies.trained.interval.low, copies.trained.interval.high) == (0, 0)
    assert (copies.trained.hodges_lehmann, copies.trained.rank_biserial, copies.mean_difference) == (0, 0, 0)
    assert (copies.methods.p, copies.methods.verdict) == (1, NO_DIFFERENCE)
    by_method, (stability,) = ranks(table, DICE)
    assert [each.mean_then_rank for each in by_method] == [1.5, 1.5, 3]
    assert [each.rank_then_mean for each in by_method] == [1.5, 1.5, 3]
    assert [each.test_based for each in by_method] == [1.5, 1.5, 3]
    assert [each.frequencies for each in by_method] == [(1, 0, 0), (1, 0, 0), (0, 0, 1)]
    assert (stability.kendall_tau.low, stability.kendall_tau.high) == pytest.approx((1, 1))
    assert stability.schemes_agree


@pytest.mark.parametrize(
    ("num_cases", "num_methods", "expected"),
    [(5, 2, NOT_TESTABLE), (6, 2, BETTER), (6, 3, NOT_TESTABLE), (7, 3, BETTER)],
)
def test_with_too_few_cases_even_a_model_that_wins_them_all_is_not_testable(num_cases, num_methods, expected):
    best = np.linspace(0.8, 0.9, num_cases)[None]
    others = {f"other{number}": best - 0.01 - 0.001 * np.arange(num_cases) for number in range(num_methods - 1)}
    found = [each for each in pairs(score_table({"best": best, **others}), DICE) if each.class_name is None]
    assert [each.trained.verdict for each in found] == [expected] * (num_methods - 1) + [NO_DIFFERENCE] * (
        num_methods - 2
    )


def test_nearly_equal_sums_are_no_difference():
    # 0.1 + 0.2 + 0.3 depends on the order of the sum in its last bit; the mean of the cases must not.
    first = np.array([[0.1, 0.3], [0.2, 0.2], [0.3, 0.1]])
    second = np.array([[0.2, 0.1], [0.2, 0.3], [0.2, 0.2]])
    table = score_table({"a": first, "b": second})
    assert pairs(table, DICE)[0].trained.p == 1
    assert [each.rank_then_mean for each in ranks(table, DICE)[0]] == [1.5, 1.5]


def test_differences_that_are_equal_but_for_rounding_are_ties():
    table = score_table({"a": [[0.3, 0.2, 0.5, 0.1, 0.4]], "b": [[0.2, 0.1, 0.4, 0.2, 0.3]]})
    assert pairs(table, DICE)[0].trained.rank_biserial == pytest.approx((4 - 1) / 5)


def test_lower_distances_turn_the_verdict_not_the_difference():
    table = score_table(random_scores({"good": 0.85, "bad": 0.75}, 3, 30), ("Dice", "HD95"))
    settings = replace(DICE, metrics=("Dice", "HD95"))
    dice, distance = (pair for pair in pairs(table, settings) if pair.class_name is None)
    assert dice.mean_difference == pytest.approx(-distance.mean_difference)
    assert distance.mean_difference < 0 < dice.mean_difference
    assert dice.trained.rank_biserial == distance.trained.rank_biserial > 0.9
    for pair in (dice, distance):
        assert (pair.trained.verdict, pair.methods.verdict) == (BETTER, BETTER)
    assert distance.methods.interval.high < 0 < dice.methods.interval.low
    for scheme in ("mean_then_rank", "rank_then_mean", "test_based"):
        assert [round(getattr(each, scheme)) for each in ranks(table, settings)[0]] == [1, 2, 1, 2]


def test_p_values_of_a_metric_and_class_are_one_family():
    table = score_table(random_scores({"a": 0.8, "b": 0.805, "c": 0.81}, 3, 30, 2), classes=("organ", "lesion"))
    for class_name in (None, "organ", "lesion"):
        family = [pair for pair in pairs(table, DICE) if pair.class_name == class_name]
        smallest = min(family, key=lambda pair: pair.trained.p)
        assert smallest.trained.p_holm == pytest.approx(3 * smallest.trained.p)
        smallest = min(family, key=lambda pair: pair.methods.p)
        assert smallest.methods.p_holm == pytest.approx(min(3 * smallest.methods.p, 1))


def test_baseline_is_the_second_of_every_pair_and_the_family_is_smaller():
    table = score_table(random_scores({"a": 0.8, "b": 0.81, "c": 0.82}, 3, 30))
    found = [pair for pair in pairs(table, replace(DICE, baseline="b")) if pair.class_name is None]
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("c", "b")]
    smallest = min(found, key=lambda pair: pair.trained.p)
    assert smallest.trained.p_holm == pytest.approx(2 * smallest.trained.p)
    with pytest.raises(UsageError, match="The baseline d is none of the methods: a, b, c"):
        pairs(table, replace(DICE, baseline="d"))
    assert ranks(table, replace(DICE, baseline="b")) == ranks(table, DICE)


@pytest.mark.parametrize("num_runs", [1, 2])
def test_methods_with_few_trainings_are_not_testable(num_runs):
    scores = random_scores({"a": 0.9, "b": 0.6}, 3, 30)
    scores["a"] = scores["a"][:num_runs]
    (pair,) = pairs(score_table(scores), DICE)[:1]
    assert pair.trained.verdict == BETTER
    assert (pair.methods.verdict, pair.methods.p, pair.methods.p_holm, pair.methods.interval) == (
        NOT_TESTABLE,
        *[None] * 3,
    )
    assert pair.methods.num_seeds == (num_runs, 3)
    expected = (
        f"a has {num_runs} training{'s' * (num_runs > 1)}; 3 trainings of each method with different seeds are needed"
    )
    assert pair.methods.reason == expected


def test_copies_of_a_run_are_one_training():
    scores = random_scores({"a": 0.9, "b": 0.6}, 3, 30)
    once = score_table({"a": scores["a"][:2], "b": scores["b"]})
    repeated = score_table({"a": scores["a"][[0, 1, 1]], "b": scores["b"]})
    (pair,) = pairs(repeated, DICE)[:1]
    assert pair.methods.num_seeds == (2, 3)
    assert "a has 2 trainings (of 3 runs, those with identical scores count as one training); 3" in pair.methods.reason
    assert summaries(repeated, DICE) == summaries(once, DICE)
    assert pair.mean_difference == pairs(once, DICE)[0].mean_difference


def test_methods_that_never_vary():
    flat = np.ones((3, 5))
    sizes = np.arange(9)[:, None, None] * np.ones((1, 5, 1), dtype=int)  # the predictions differ, their scores do not
    table = score_table({"a": 0.9 * flat, "b": 0.7 * flat, "c": 0.7 * flat}, num_predicted=sizes)
    different, _, same = (pair.methods for pair in pairs(table, DICE) if pair.class_name is None)
    assert different.verdict == NOT_TESTABLE
    assert "no score varies" in different.reason
    assert (same.p, same.p_holm, same.verdict) == (1, 1, NO_DIFFERENCE)


def test_cases_without_a_class_and_classes_without_a_case():
    scores = random_scores({"a": 0.9, "b": 0.6}, 3, 12, 3)
    for values in scores.values():
        values[:, :5, 0] = np.nan
        values[:, :, 1] = np.nan
        values[:, 1:, 2] = np.nan
    table = score_table(scores, classes=("some", "never", "once"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {pair.class_name: pair for pair in pairs(table, DICE)}
        described = {each.class_name: each for each in summaries(table, DICE)}
    assert {name: pair.num_cases for name, pair in found.items()} == {None: 8, "some": 7, "never": 0, "once": 1}
    assert found["some"].means[0] == pytest.approx(np.nanmean(scores["a"][:, :, 0]))
    never, once = found["never"], found["once"]
    assert np.isnan([never.mean_difference, never.trained.p, never.trained.p_holm, never.trained.interval.low]).all()
    assert (never.trained.verdict, never.methods.verdict) == (NOT_TESTABLE, NOT_TESTABLE)
    assert never.methods.reason == "no case counts; at least 2 are needed"
    assert np.isnan([described["never"].mean, described["never"].median, *described["never"].quartiles]).all()
    assert described["never"].seed_deviation is None
    assert (once.trained.p, once.trained.verdict) == (1, NOT_TESTABLE)
    assert once.methods.reason == "1 case counts; at least 2 are needed"


def test_a_metric_without_a_case_has_no_ranks():
    scores = np.full((3, 4), np.nan)
    assert ranks(score_table({"a": scores, "b": scores}), DICE) == ((), ())


def test_summary_by_hand():
    """Cases of 0.2, 0.3, 0.4 and 0.9, trainings of 0.4 and 0.5, of which the second is not better on every case."""
    table = score_table({"a": np.array([[0.1, 0.2, 0.3, 1.0], [0.3, 0.4, 0.5, 0.8]])})
    summary = summaries(table, DICE)[0]
    assert (summary.method, summary.metric, summary.class_name) == ("a", "Dice", None)
    assert (summary.num_cases, summary.num_runs) == (4, 2)
    assert (summary.mean, summary.median, *summary.quartiles) == pytest.approx((0.45, 0.35, 0.275, 0.525))
    assert summary.standard_deviation == pytest.approx((0.29 / 3) ** 0.5)
    assert summary.seed_deviation == pytest.approx(0.005**0.5)
    assert 0.2 <= summary.interval.low < 0.45 < summary.interval.high <= 0.9


def test_pair_by_hand():
    first = np.array([[0.2, 0.3, 0.4, 0.9]])
    table = score_table({"a": first, "b": first - [0.1, -0.05, 0.15, 0.4]})
    (pair,) = pairs(table, DICE)[:1]
    assert (pair.first, pair.second, pair.num_cases) == ("a", "b", 4)
    assert pair.means == pytest.approx((0.45, 0.3))
    assert (pair.mean_difference, pair.median_difference) == pytest.approx((0.15, 0.125))
    assert pair.trained.rank_biserial == pytest.approx((2 + 3 + 4 - 1) / 10)
    assert pair.trained.hodges_lehmann == pytest.approx(0.1375)  # between 0.125 and 0.15, of ten means of two


@pytest.mark.parametrize(("metric", "first"), [("Dice", "worse"), ("HD95", "worse")])
@pytest.mark.parametrize("num_runs", [1, 3])
def test_non_inferior_is_what_is_worse_by_less_than_the_margin(metric, first, num_runs):
    table = score_table(random_scores({"worse": 0.80, "better": 0.82}, num_runs, 40), (metric,))
    settings = replace(DICE, metrics=(metric,), margin=0.05)
    (pair,) = pairs(table, settings)[:1]
    interval = pair.methods.interval or pair.trained.interval
    assert (pair.methods.interval is None) == (num_runs == 1)
    worst = -interval.low if metric == "Dice" else interval.high
    assert 0.01 < worst < 0.05
    assert pair.non_inferior == (True, True)  # the better one is not inferior with any margin
    assert pairs(table, replace(settings, margin=worst - 1e-6))[0].non_inferior == (False, True)
    assert pairs(table, replace(settings, margin=worst + 1e-6))[0].non_inferior == (True, True)
    assert pairs(table, replace(settings, margin=None))[0].non_inferior is None


@pytest.mark.parametrize("metric", ["Dice", "HD95"])
@pytest.mark.parametrize("num_runs", [1, 3])
@pytest.mark.parametrize("gap", [0.0, 0.02, 0.05])
def test_non_inferiority_does_not_depend_on_the_order_of_the_methods(metric, num_runs, gap):
    scores = random_scores({"a": 0.80, "b": 0.80 + gap}, num_runs, 40)
    settings = replace(DICE, metrics=(metric,), margin=0.025)
    (pair,) = pairs(score_table(scores, (metric,)), settings)[:1]
    (other,) = pairs(score_table(dict(reversed(scores.items())), (metric,)), settings)[:1]
    assert (other.first, other.second) == ("b", "a")
    assert other.non_inferior == pair.non_inferior[::-1]
    assert pair.non_inferior == (gap == 0, True)


def test_too_few_cases_show_no_non_inferiority():
    few, many = (score_table(random_scores({"a": 0.8, "b": 0.8}, 1, number)) for number in (4, 30))
    assert pairs(few, replace(DICE, margin=0.5))[0].non_inferior == (False, False)
    assert pairs(many, replace(DICE, margin=0.5))[0].non_inferior == (True, True)


def test_only_the_primary_metric_has_a_margin():
    table = score_table(random_scores({"a": 0.80, "b": 0.82}, 3, 10), ("Dice", "HD95"))
    found = pairs(table, replace(DICE, metrics=("Dice", "HD95"), margin=0.05))
    assert [pair.non_inferior is None for pair in found] == [pair.metric == "HD95" for pair in found]


def test_one_method_has_no_pairs():
    table = score_table(random_scores({"a": 0.8}, 3, 10))
    assert pairs(table, DICE) == ()
    (rank,), (stability,) = ranks(table, DICE)
    assert (rank.mean_then_rank, rank.rank_then_mean, rank.test_based, rank.frequencies) == (1, 1, 1, (1,))
    assert np.isnan(stability.kendall_tau.low)


def test_detection_by_hand():
    table = score_table(
        {"a": np.zeros((2, 5)), "b": np.ones((1, 5))},
        num_reference=np.array([[0], [5], [0], [7], [4]]),
        num_predicted=np.array([[3, 5, 0, 0, 4], [0, 5, 0, 6, 4], [0, 5, 0, 7, 4]])[:, :, None],
    )
    table = replace(table, voxel_volume=np.array([2.0, 1, 1, 1, 1]))
    first, second = detection(table)
    assert (first.method, first.class_name, first.num_absent, first.num_present) == ("a", "organ", 2, 3)
    assert first.false_positive_rate == pytest.approx(1 / 4)  # one of two cases in one of two runs
    assert first.false_positive_volume == pytest.approx(3 * 2 / 4)
    assert first.missed_rate == pytest.approx(1 / 6)
    assert (second.false_positive_rate, second.false_positive_volume, second.missed_rate) == (0, 0, 0)
    always = replace(table, num_reference=np.full((5, 1), 5))
    assert [each.false_positive_rate for each in detection(always)] == [None, None]
    assert [each.false_positive_volume for each in detection(always)] == [None, None]
    never = replace(table, num_reference=np.zeros((5, 1)))
    assert [each.missed_rate for each in detection(never)] == [None, None]


@pytest.mark.parametrize("metric", ["Dice", "HD95"])
@pytest.mark.parametrize("loss", [0.5, 0.39, 0.0])
def test_where_ranks_and_mean_point_apart_the_verdict_is_mixed(metric, loss):
    """b wins 39 cases by 0.01 and loses one, by much: 0.39 makes the means equal."""
    first = np.linspace(0.6, 0.9, 40)[None]
    second = first + 0.01
    second[0, 20] = first[0, 20] - loss
    settings = replace(DICE, metrics=(metric,))
    expected = MIXED if loss else WORSE
    for names, opposite in (("ab", WORSE), ("ba", BETTER)):
        table = score_table({name: {"a": first, "b": second}[name] for name in names}, (metric,))
        trained = pairs(table, settings)[0].trained
        assert trained.p_holm < 0.001
        assert np.sign(trained.rank_biserial) == (-1 if names == "ab" else 1)
        assert trained.verdict == (MIXED if expected == MIXED else opposite)
        by_tests = {each.method: each.test_based for each in ranks(table, settings)[0]}
        assert by_tests == ({"a": 1.5, "b": 1.5} if expected == MIXED else {"a": 2, "b": 1})


def test_worse_is_the_word_for_the_first_of_a_pair():
    (pair,) = pairs(score_table(random_scores({"bad": 0.6, "good": 0.9}, 3, 30)), DICE)[:1]
    assert (pair.trained.verdict, pair.methods.verdict) == (WORSE, WORSE)
