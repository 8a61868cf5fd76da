"""Averages of metrics by hand, of numbers whose mean is not their median."""

from __future__ import annotations

import math

from nnunetv2.evaluation.summary_json import summary_of_cases


def case(of_one: float, of_two: float) -> dict:
    return {"metrics": {0: {"Dice": 1.0}, 1: {"Dice": of_one}, (1, 2): {"Dice": of_two}}}


def test_means_are_over_the_cases_first_and_then_over_the_regions_but_background():
    cases = [case(0.0, 1.0), case(0.25, math.nan), case(0.875, 0.5), case(0.375, math.nan)]
    summary = summary_of_cases(cases, [0, 1, (1, 2)])
    assert summary["metric_per_case"] == cases
    assert summary["mean"] == {0: {"Dice": 1.0}, 1: {"Dice": 1.5 / 4}, (1, 2): {"Dice": 1.5 / 2}}
    assert summary["foreground_mean"] == {"Dice": (0.375 + 0.75) / 2}  # of all six numbers it would be 0.5


def test_a_region_without_any_case_leaves_the_foreground_mean_undefined():
    summary = summary_of_cases([case(0.5, math.nan), case(0.25, math.nan)], [0, 1, (1, 2)])
    assert summary["mean"][1] == {"Dice": 0.375}
    assert math.isnan(summary["mean"][(1, 2)]["Dice"]) and math.isnan(summary["foreground_mean"]["Dice"])
