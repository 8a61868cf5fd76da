"""What is said of planted situations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunetv2.comparison.report.leader import negated
from nnunetv2.comparison.report.verdict import verdict_in_words
from nnunetv2.comparison.results import (
    BETTER,
    MIXED,
    NO_DIFFERENCE,
    NOT_TESTABLE,
    WORSE,
    Comparison,
    Interval,
    MethodCost,
    PairResult,
)
from tests.comparison.report.planted import METHODS, iterations_differ, planted

BEST, SECOND, THIRD = METHODS[:3]


def text_of(statements: object) -> str:
    return "\n".join(statement.as_sentence() for statement in statements)


def with_pair(comparison: Comparison, **changes: object) -> Comparison:
    """Changes the first pair of the primary metric; `trained_` and `methods_` lead into the tests."""
    first = comparison.pairs_of(comparison.settings.metrics[0])[0]
    parts = {"trained": first.trained, "methods": first.methods}
    for name in parts:
        own = {key.removeprefix(f"{name}_"): value for key, value in changes.items() if key.startswith(f"{name}_")}
        parts[name] = replace(parts[name], **own)
    direct = {key: value for key, value in changes.items() if not key.startswith(("trained_", "methods_"))}
    changed = replace(first, **parts, **direct)
    return replace(comparison, pairs=tuple(changed if pair is first else pair for pair in comparison.pairs))


def two(**changes: object) -> Comparison:
    """Two methods with three seeds on 25 cases; the first is better by 0.02 (0.01 to 0.03)."""
    comparison = planted(2, 3, 25, metrics=("Dice",), gap=0.02, is_known=False, equalities=())
    known = {
        "mean_difference": 0.02,
        "trained_interval": Interval(0.01, 0.03),
        "trained_p_holm": 0.004,
        "trained_verdict": BETTER,
        "methods_interval": Interval(0.002, 0.038),
        "methods_p_holm": 0.03,
        "methods_verdict": BETTER,
    }
    return with_pair(comparison, **(known | changes))


def test_better_says_by_how_much_on_how_many_cases_and_trainings() -> None:
    verdict = verdict_in_words(two())
    headline = verdict.headline.as_sentence()
    assert headline.startswith(f"{BEST} has the highest mean Dice of 2 methods: 0.7")
    assert headline.endswith("on 25 cases of Dataset004_<Cells & more>, with 3 trainings of each method.")
    assert text_of(verdict.trained) == (
        f"These trained models differ on these 25 cases (signed-rank test): {BEST} is better than {SECOND} by 0.020 "
        f"(95 % CI of the mean difference 0.010 to 0.030; Holm-adjusted p = 0.004)."
    )
    assert text_of(verdict.methods) == (
        f"The methods differ, also for other trainings and other cases of this kind: {BEST} is better than {SECOND} "
        f"by 0.020 (95 % CI of the mean difference 0.002 to 0.038; Holm-adjusted p = 0.030)."
    )


def test_baseline_that_loses_is_said_to_be_worse_by_a_positive_amount() -> None:
    comparison = two()
    settings = replace(comparison.settings, baseline=SECOND)
    verdict = verdict_in_words(replace(comparison, settings=settings))
    beginning = f"{SECOND} is worse than {BEST} by 0.020 (95 % CI of the mean difference"
    assert f"{beginning} 0.010 to 0.030;" in text_of(verdict.trained)
    assert f"{beginning} 0.002 to 0.038;" in text_of(verdict.methods)


def test_smaller_distance_is_better() -> None:
    comparison = planted(2, 3, 25, metrics=("HD95",), gap=0.02, is_known=False, equalities=())
    changed = with_pair(comparison, mean_difference=-1.5, trained_interval=Interval(-2.0, -1.0), trained_verdict=BETTER)
    verdict = verdict_in_words(changed)
    assert f"{BEST} has the lowest mean HD95 of 2 methods: " in verdict.headline.as_sentence()
    assert f"{SECOND} by 1.50 mm (95 % CI of the mean difference 1.00 to 2.00;" in text_of(verdict.trained)


@pytest.mark.parametrize("baseline", [None, BEST, SECOND])
@pytest.mark.parametrize("metric", ["Dice", "HD95"])
def test_mixed_verdict_tells_who_is_better_in_what(baseline: str | None, metric: str) -> None:
    """The second wins all cases but one, and loses that by far, whoever is spoken of first."""
    sign = 1 if metric == "Dice" else -1
    unit = "" if metric == "Dice" else " mm"
    comparison = planted(2, 1, 40, ("a",), metrics=(metric,), is_known=False, equalities=())
    values = np.full((2, 40, 1), 5.0)
    values[1] += sign * 0.5
    values[1, 7] = 5 - sign * 4
    mixed = with_pair(
        replace(comparison, scores=replace(comparison.scores, values={metric: values})),
        mean_difference=sign * 0.25,
        trained_interval=Interval(0.125, 0.375) if sign > 0 else Interval(-0.375, -0.125),
        trained_rank_biserial=-0.62,
        trained_p_holm=0.003,
        trained_verdict=MIXED,
    )
    said = text_of(verdict_in_words(replace(mixed, settings=replace(mixed.settings, baseline=baseline))).trained)
    digits = 3 if metric == "Dice" else 2
    low, mean, high = (f"{value:.{digits}f}" for value in (0.125, 0.25, 0.375))
    assert said == (
        f"These trained models differ, but not in one direction, on these 40 cases (signed-rank test): {SECOND} is "
        f"better than {BEST} in 39 of 40 cases (rank-biserial +0.62; Holm-adjusted p = 0.003), {BEST} in the mean (by "
        f"{mean}{unit}, 95 % CI of the mean difference {low} to {high}). So neither is called better: in the mean, few "
        f"large differences outweigh many small ones."
    )


def test_mixed_verdict_without_a_mean_difference() -> None:
    said = text_of(verdict_in_words(two(trained_verdict=MIXED, mean_difference=0.0)).trained)
    assert "but not in the mean (no difference, 95 % CI of the mean difference −0.030 to −0.010)" in said


def test_mixed_pairs_count_as_differing(five: Comparison) -> None:
    said = text_of(verdict_in_words(with_pair(five, trained_verdict=MIXED)).trained)
    assert "Pairs that differ, of 10 in all: 10 as trained models (1 of them not in one direction), 10 as" in said
    assert f"{BEST} is better than {THIRD} by" in said


@pytest.mark.parametrize(
    ("verdict", "interval", "is_told"),
    [
        (BETTER, Interval(-0.004, 0.065), True),
        (BETTER, Interval(0.004, 0.065), False),
        (WORSE, Interval(-0.065, 0.004), True),
        (NO_DIFFERENCE, Interval(0.051, 0.133), True),
        (NO_DIFFERENCE, Interval(-0.01, 0.133), False),
        (MIXED, Interval(-0.004, 0.065), False),
        (NOT_TESTABLE, Interval(0.051, 0.133), False),
    ],
)
def test_test_and_interval_that_do_not_agree_are_explained(verdict: str, interval: Interval, is_told: bool) -> None:
    said = text_of(verdict_in_words(two(trained_verdict=verdict, trained_interval=interval)).trained)
    explanation = f"Test and interval do not agree for {BEST} against {SECOND}: the test looks at the ranks of the"
    assert (explanation in said) == is_told
    assert ("what lies within the interval remains possible" in said) == (verdict == NO_DIFFERENCE and not is_told)
    assert ("That is no proof that they are equal" in said) == (verdict == NO_DIFFERENCE)


def test_interval_of_methods_that_only_the_adjusting_contradicts_is_explained() -> None:
    said = text_of(verdict_in_words(two(methods_verdict=NO_DIFFERENCE, methods_p_holm=0.09)).methods)
    assert f"Test and interval do not agree for {BEST} against {SECOND}: p is adjusted for the number of pairs" in said
    assert "do not agree" not in text_of(verdict_in_words(two()).methods)


def test_no_difference_is_not_called_equality() -> None:
    verdict = verdict_in_words(
        two(
            trained_verdict=NO_DIFFERENCE,
            methods_verdict=NO_DIFFERENCE,
            mean_difference=0.002,
            trained_interval=Interval(-0.001, 0.005),
            methods_interval=Interval(-0.01, 0.014),
        )
    )
    trained, methods = text_of(verdict.trained), text_of(verdict.methods)
    assert trained.startswith(
        f"These trained models do not show a difference on these 25 cases (signed-rank test): {BEST} and {SECOND} "
        f"(advantage of the former +0.002, 95 % CI of the mean difference −0.001 to 0.005;"
    )
    assert "no proof that they are equal" in trained
    assert methods.startswith("The methods do not show a difference")
    assert "no proof that the methods are equal" in methods


def test_identical_scores_are_told_as_such() -> None:
    verdict = verdict_in_words(planted(2, 1, 25, metrics=("Dice",), gap=0.0, is_known=False))
    assert f"{BEST} and {SECOND} share the highest mean Dice of 2 methods" in verdict.headline.as_sentence()
    assert text_of(verdict.trained) == (
        f"These trained models do not show a difference on these 25 cases: {BEST} and {SECOND} score alike in every "
        f"case."
    )


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_too_few_seeds_say_nothing_about_methods(num_seeds: int) -> None:
    verdict = verdict_in_words(planted(2, num_seeds, 25, metrics=("Dice",), is_known=False))
    methods = text_of(verdict.methods)
    assert methods.startswith(f"The methods: not testable. Whether {BEST} differs as a method from {SECOND} is open")
    assert methods.endswith(
        f"It takes at least 3 trainings of each method, with different seeds; here each has {num_seeds}."
    )
    assert "better" not in methods


def test_unequal_and_repeated_trainings_are_counted_by_method() -> None:
    few = {"methods_verdict": NOT_TESTABLE, "methods_p": None, "methods_p_holm": None, "methods_interval": None}
    methods = text_of(verdict_in_words(two(**few, methods_num_seeds=(3, 1))).methods)
    assert f"here {BEST} has 3 and {SECOND} has 1 (of its 3 runs, those that score alike count as one)." in methods


def test_another_reason_for_not_testable_is_passed_on() -> None:
    few = {"methods_verdict": NOT_TESTABLE, "methods_p": None, "methods_p_holm": None, "methods_interval": None}
    assert text_of(verdict_in_words(two(**few, methods_reason="no score varies")).methods).endswith(
        "is open: no score varies."
    )


def test_too_few_cases_for_any_verdict_are_said() -> None:
    limits = text_of(verdict_in_words(planted(3, 1, 6, metrics=("Dice",), is_known=False)).limits)
    assert "6 cases and 3 pairs cannot show a difference between trained models" in limits
    assert "even one that is better in every case would have p = 0.094" in limits
    limits = text_of(verdict_in_words(planted(3, 1, 7, metrics=("Dice",), is_known=False)).limits)
    assert "cannot show a difference" not in limits


def test_few_cases_make_narrow_intervals() -> None:
    limits = text_of(verdict_in_words(planted(2, 1, 19, metrics=("Dice",), is_known=False)).limits)
    assert "With 19 cases, fewer than 20, the intervals (95 % CI) are too narrow" in limits
    limits = text_of(verdict_in_words(planted(2, 1, 20, metrics=("Dice",), is_known=False)).limits)
    assert "too narrow" not in limits


def test_allowed_difference_and_missing_records_come_first_in_what_cannot_be_said(five: Comparison) -> None:
    limits = verdict_in_words(five).limits
    assert limits[0].lead == "Whether all runs are alike in augmentation is not recorded, so it was not checked."
    broken = planted(2, 1, 25, metrics=("Dice",), equalities=(iterations_differ("a", "b"),))
    assert verdict_in_words(broken).limits[0].lead.startswith("NOT COMPARABLE in iterations (steps of the training)")


def test_random_weights_are_alike_whatever_the_network(five: Comparison) -> None:
    words = ("none given", "dinov3 tiny, random weights", "dinov3 base, released weights", None, "none given")
    costs = tuple(replace(cost, pretrained=text) for cost, text in zip(five.costs, words, strict=True))
    limits = text_of(verdict_in_words(replace(five, costs=costs)).limits)
    assert f"{METHODS[0]}, {METHODS[1]} and {METHODS[4]}: random weights; {METHODS[2]}: dinov3 base" in limits
    random = tuple(cost for cost in costs if cost.method in (METHODS[0], METHODS[1]))
    assert "different weights" not in text_of(verdict_in_words(replace(five, costs=random)).limits)


def test_other_limits(five: Comparison) -> None:
    limits = text_of(verdict_in_words(five).limits)
    assert "started from different weights" in limits and f"{THIRD}: timm/vit_small" in limits
    assert "The order of the methods by NSD depends on how ranks are made" in limits
    assert "The models of different folds share training cases" in limits
    assert "HD95 and ASSD are set to the diagonal of the image" in limits


def test_cost_of_the_best_is_set_against_the_least_and_the_most() -> None:
    comparison = planted(3, 1, 25, metrics=("Dice",), equalities=())
    costs = tuple(
        MethodCost(method, gflops_per_patch=flops)
        for method, flops in zip(METHODS, (300.0, 100.0, 400.0), strict=False)
    )
    cost = text_of(verdict_in_words(replace(comparison, costs=costs)).cost)
    assert cost.startswith(
        f"Computation to predict one patch: 300 GFLOPs for {BEST} (best by score, 3 times the least), "
        f"least 100 GFLOPs for {SECOND}, most 400 GFLOPs for {THIRD}."
    )
    assert (
        "Not known of any method: parameters, time to predict one case, training time of all folds and peak GPU memory"
        in cost
    )


def test_costs_of_predictions_alone_are_not_spoken_of() -> None:
    comparison = planted(2, 1, 25, metrics=("Dice",), is_known=False, equalities=())
    assert text_of(verdict_in_words(comparison).cost).startswith("Not known of any method: computation")
    runs = tuple(replace(run, fold_of={}) for run in comparison.scores.runs)
    assert verdict_in_words(replace(comparison, scores=replace(comparison.scores, runs=runs))).cost == ()


def test_unknown_costs_are_not_guessed(five: Comparison) -> None:
    cost = text_of(verdict_in_words(five).cost)
    assert f"Training time of all folds: 9.5 hours for {BEST} (best by score, takes the least)" in cost
    assert f"not known of {THIRD} and {METHODS[3]}" in cost


def swapped(comparison: Comparison) -> Comparison:
    """The pairs as they are where the methods were given the other way round."""

    def turned(pair: PairResult) -> PairResult:
        assert pair.trained.verdict == BETTER
        interval = negated(pair.trained.interval)
        trained = replace(pair.trained, interval=interval, verdict=WORSE, rank_biserial=-pair.trained.rank_biserial)
        return replace(
            pair, first=pair.second, second=pair.first, means=pair.means[::-1], trained=trained,
            mean_difference=-pair.mean_difference, non_inferior=pair.non_inferior[::-1],
        )  # fmt: skip

    return replace(comparison, pairs=tuple(turned(pair) for pair in comparison.pairs))


def test_margin_is_answered_both_ways_for_the_pairs_of_the_leader() -> None:
    comparison = planted(3, 1, 25, metrics=("Dice",), gap=0.02, is_known=False, margin=0.03)
    expected = (
        f"Non-inferiority of these trained models with a margin of 0.03 in Dice is shown for {BEST} against {SECOND}; "
        f"{SECOND} against {BEST}; {BEST} against {THIRD}.\n"
        "Non-inferiority of these trained models with a margin of 0.03 in Dice is not shown for "
        f"{THIRD} against {BEST}."
    )
    for given in (comparison, swapped(comparison)):
        assert text_of(verdict_in_words(given).methods).endswith(expected)


def test_margin_of_a_baseline_is_answered_for_the_others_alone() -> None:
    comparison = planted(2, 1, 25, metrics=("Dice",), gap=0.02, is_known=False, margin=0.01)
    for baseline, other, answer in ((BEST, SECOND, "is not shown"), (SECOND, BEST, "is shown")):
        chosen = replace(comparison, settings=replace(comparison.settings, baseline=baseline))
        methods = text_of(verdict_in_words(chosen).methods)
        assert methods.endswith(
            f"Non-inferiority of these trained models with a margin of 0.01 in Dice {answer} for "
            f"{other} against {baseline}."
        )
        assert methods.count("Non-inferiority") == 1


def test_many_opponents_are_items_of_one_statement(five: Comparison) -> None:
    statement = verdict_in_words(five).trained[0]
    assert statement.lead == f"These trained models differ on these 30 cases (signed-rank test): {BEST} is better than"
    assert [item.split(" by ")[0] for item in statement.items] == list(METHODS[1:5])
    assert [sentence for sentence in verdict_in_words(five)][1] == statement.as_sentence()


def test_without_a_case_that_counts_nothing_is_said() -> None:
    comparison = planted(2, 1, 25, metrics=("Dice",), is_known=False)
    summaries = tuple(replace(each, num_cases=0, mean=float("nan")) for each in comparison.summaries)
    nothing = replace(comparison, summaries=summaries)
    assert verdict_in_words(nothing).headline.as_sentence() == (
        "No case of Dataset004_<Cells & more> counts in Dice, so nothing is said about any method."
    )


def test_a_single_case_has_no_interval() -> None:
    nan = Interval(float("nan"), float("nan"))
    trained = text_of(verdict_in_words(two(trained_verdict=NO_DIFFERENCE, trained_interval=nan)).trained)
    assert "(advantage of the former +0.020, no interval; Holm-adjusted p = 0.004)" in trained


def with_class_means(comparison: Comparison, **advantages: float) -> Comparison:
    """Sets the mean advantage of the first method over the second in the classes, in order."""
    names = dict(zip(comparison.scores.classes, advantages.values(), strict=True))
    summaries = [
        replace(each, mean=0.8 + (names[each.class_name] if each.method == BEST else 0.0))
        if each.class_name in names
        else each
        for each in comparison.summaries
    ]
    return replace(comparison, summaries=tuple(summaries))


def test_classes_that_disagree_on_a_pair_are_named() -> None:
    comparison = with_class_means(two(), first=-0.03, second=0.01, third=0.2)
    opening = verdict_in_words(comparison).headline.as_sentence()
    assert (
        f"The classes disagree on {BEST} and {SECOND}: {SECOND} is better in <b>nucleus</b> (by 0.030), {BEST} in "
        "mitochondria (by 0.200) and cytoplasm, outer (by 0.010)"
    ) in opening


def test_classes_that_agree_are_not_mentioned() -> None:
    comparison = with_class_means(two(), first=0.03, second=0.01, third=0.2)
    assert "disagree" not in verdict_in_words(comparison).headline.as_sentence()


def test_a_class_with_few_voxels_is_not_averaged_without_a_word() -> None:
    comparison = two()
    table = comparison.scores
    counts = np.broadcast_to([900, 80, 20], table.num_reference.shape)
    opening = verdict_in_words(replace(comparison, scores=replace(table, num_reference=counts))).headline.as_sentence()
    assert "Of the reference voxels of these classes, mitochondria (2.0 %) has few, and counts in the mean" in opening
    chosen = replace(comparison.settings, primary_classes=table.classes)
    declared = replace(comparison, scores=replace(table, num_reference=counts), settings=chosen)
    assert "has few" not in verdict_in_words(declared).headline.as_sentence()
