"""Planned power against the power of the test itself in simulated studies."""

from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.comparison.statistics.method_test import method_difference
from nnunetv2.comparison.statistics.power import (
    VarianceParts,
    num_cases_for,
    parts_of_pilot,
    power,
    smallest_difference,
)

# Standard deviations (trainings, interaction, rest), cases, trainings, difference, level.
SETTINGS = [
    (0.005, 0.02, 0.03, 50, 3, 0.01, 0.05),
    (0.005, 0.02, 0.03, 50, 5, 0.02, 0.05),
    (0.005, 0.02, 0.03, 50, 5, 0.02, 0.05 / 6),
    (0.01, 0.02, 0.03, 50, 3, 0.02, 0.05),
    (0.01, 0.04, 0.03, 20, 5, 0.02, 0.05 / 3),
    (0.01, 0.05, 0.05, 200, 10, 0.01, 0.05),
    (0.002, 0.08, 0.02, 100, 3, 0.02, 0.05),
    (0.0, 0.03, 0.03, 20, 4, 0.02, 0.05),
    (0.02, 0.0, 0.03, 30, 6, 0.05, 0.05),
    (0.01, 0.03, 0.0, 12, 8, 0.02, 0.05 / 10),
]
PARTS = VarianceParts(0.01**2, 0.03**2, 0.03**2, 12)


def simulated(
    deviations: tuple[float, float, float], shape: tuple[int, int], difference: float, num_studies: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(num_studies, S, N) scores of two methods whose variances are given."""
    of_trainings, interaction, rest = deviations
    num_trainings, num_cases = shape
    rng = np.random.default_rng(seed)
    methods = []
    for gain in (difference, 0.0):
        scores = gain + of_trainings * rng.standard_normal((num_studies, num_trainings, 1))
        scores = scores + interaction / 2**0.5 * rng.standard_normal((num_studies, 1, num_cases))
        methods.append(scores + rest * rng.standard_normal((num_studies, num_trainings, num_cases)))
    return methods[0], methods[1]


def simulated_power(setting: tuple[float, ...], num_studies: int) -> float:
    """Share of simulated studies in which the test shows the difference."""
    *deviations, num_cases, num_trainings, difference, alpha = setting
    test = method_difference(*simulated(tuple(deviations), (num_trainings, num_cases), difference, num_studies))
    return float(((test.p_value() < alpha) & (test.difference > 0)).mean())


@pytest.mark.parametrize("setting", SETTINGS)
def test_planned_power_is_that_of_simulated_studies(setting):
    *deviations, num_cases, num_trainings, difference, alpha = setting
    found = simulated_power(setting, 4000)
    of_trainings, interaction, rest = (deviation**2 for deviation in deviations)
    planned = power(VarianceParts(of_trainings, interaction, rest, 1), num_cases, num_trainings, difference, alpha)
    assert planned == pytest.approx(found, abs=0.03)


def test_variances_of_a_large_pilot_are_found():
    first, second = simulated((0.01, 0.03, 0.02), (60, 400), 0.05, 1)
    parts = parts_of_pilot([first[0], second[0]])
    found = (parts.trainings**0.5, parts.interaction**0.5, parts.residual**0.5)
    assert found == pytest.approx((0.01, 0.03, 0.02), rel=0.15)
    assert parts.num_free == 2 * 59


def test_a_method_with_one_training_adds_to_the_interaction_alone():
    first, second = simulated((0.01, 0.03, 0.02), (60, 400), 0.05, 1)
    parts = parts_of_pilot([first[0], second[0][:1]])
    assert parts.num_free == 59
    assert parts.interaction**0.5 == pytest.approx(0.03, rel=0.15)


def test_more_cases_and_seeds_show_smaller_differences():
    alpha = 0.05
    differences = [
        smallest_difference(PARTS, num_cases, num_trainings, 0.8, alpha)
        for num_cases, num_trainings in ((20, 3), (50, 3), (50, 5), (50, 20))
    ]
    assert differences == sorted(differences, reverse=True)
    assert power(PARTS, 50, 5, differences[2], alpha) == pytest.approx(0.8, abs=1e-4)


def test_the_number_of_cases_is_the_smallest_that_suffices():
    needed = num_cases_for(PARTS, 5, 0.03, 0.9, 0.05)
    assert power(PARTS, needed, 5, 0.03, 0.05) >= 0.9 > power(PARTS, needed - 1, 5, 0.03, 0.05)
    assert num_cases_for(PARTS, 3, 0.01, 0.8, 0.05) is None  # three trainings differ too much


def test_the_upper_variance_of_few_trainings_is_much_larger_than_that_of_many():
    few, many = (VarianceParts(1.0, 0.0, 0.0, number).with_upper_trainings(0.8).trainings for number in (2, 200))
    assert few == pytest.approx(2 / 0.4462871, rel=1e-6)  # 20th percentile of chi-squared: -2 log 0.8
    assert 1 < many < 1.1
