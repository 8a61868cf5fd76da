"""The test of methods: by hand, and calibrated on simulated studies."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import ttest_ind, ttest_rel

from nnunetv2.comparison.results import BETTER, NOT_TESTABLE, WORSE
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics.method_test import MethodDifference, method_difference, methods_tests
from nnunetv2.comparison.statistics.trainings import MethodScores
from nnunetv2.comparison.statistics.verdicts import holm
from tests.comparison.statistics.simulated_studies import simulated_studies

ALPHA = 0.05


def p_values(methods: list[np.ndarray]) -> np.ndarray:
    """(num_studies, pairs)"""
    return np.stack([method_difference(*pair).p_value() for pair in combinations(methods, 2)], axis=1)


def family_wise_error(methods: list[np.ndarray]) -> float:
    return float(np.mean([holm(family).min() < ALPHA for family in p_values(methods)]))


def test_by_hand():
    # Means of trainings 1 and 3, of cases 2, 2, 2: trainings vary by 2 / 2, nothing is left over. The other is 0 1 2.
    first = np.array([[1.0, 1, 1], [3, 3, 3]])
    second = np.array([[0.0, 1, 2], [0, 1, 2]])
    result = method_difference(first, second)
    assert result.difference == pytest.approx(1)
    assert result.variance == pytest.approx(1 + 1 / 3)  # the cases: variance of 2 1 0 is 1, by 3 cases
    assert result.degrees_of_freedom == pytest.approx((4 / 3) ** 2 / (1**2 / 1 + (1 / 3) ** 2 / 2))


def test_rest_is_subtracted_once():
    # Rests +-1 of 2 x 2 scores: mean square 4, by 4 scores 1. Trainings do not vary beyond it, cases do.
    first = np.array([[11.0, -1], [9, 1]])
    second = np.zeros((2, 2))
    result = method_difference(first, second)
    assert result.variance == pytest.approx(1 + (50 / 2 - 1))


def test_by_hand_with_other_numbers_of_trainings_and_rests():
    """Two trainings against four, on three cases; of each method the rest is put on top of trainings and cases."""
    rests = np.array([[2.0, -1, -1], [-2, 1, 1]]), np.array([[1.5, -1.5, 0], [-1.5, 1.5, 0], [0, 0, 0], [0, 0, 0]])
    first = np.array([[-2.0], [2]]) + np.array([10.0, 13, 16]) + rests[0]
    second = np.array([4.0, 1, 7]) + rests[1]
    result = method_difference(first, second)
    # Trainings: variance 8 by 2, and 0. Rests: 12 / (1 * 2) by 2 * 3 = 1, and 9 / (3 * 2) by 4 * 3 = 1 / 8. Cases: the
    # variance of 6 12 9 by 3.
    assert result.difference == pytest.approx(13 - 4)
    assert result.variance == pytest.approx(4 + 1 / 8 + (3 - 1 - 1 / 8))
    uncertainty = 3**2 / 2 + (4**2 + 1**2 / 2) / 1 + (0**2 + (1 / 8) ** 2 / 2) / 3
    assert result.degrees_of_freedom == pytest.approx(6**2 / uncertainty, rel=1e-12)


def test_without_luck_of_the_training_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = (np.repeat(rng.standard_normal((1, 30)), 3, axis=0) for _ in range(2))
    result = method_difference(first, second)
    expected = ttest_rel(first[0], second[0])
    assert result.p_value() == pytest.approx(expected.pvalue)
    assert result.interval(ALPHA) == pytest.approx(tuple(expected.confidence_interval(1 - ALPHA)))


def test_where_all_cases_are_alike_it_is_the_t_test_of_welch():
    rng = np.random.default_rng(0)
    first, second = (np.repeat(rng.standard_normal((runs, 1)), 40, axis=1) for runs in (4, 6))
    result = method_difference(first, second)
    expected = ttest_ind(first[:, 0], second[:, 0], equal_var=False)
    assert result.degrees_of_freedom == pytest.approx(expected.df)
    assert result.p_value() == pytest.approx(expected.pvalue)


def test_many_studies_at_once_are_the_studies_one_by_one():
    first, second = simulated_studies(5, (3, 4), (0.01, 0.01), num_cases=8)
    together = method_difference(first, second)
    for study in range(5):
        alone = method_difference(first[study], second[study])
        np.testing.assert_allclose([part[study] for part in together], alone, rtol=1e-12)
        assert method_difference(second[study], first[study]).difference == -alone.difference


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_trainings", "seed_deviations", "method_by_case"),
    [
        ((3, 3, 3, 3), (0.005,) * 4, 0.0),
        ((3, 3, 3, 3), (0.005,) * 4, 0.02),
        ((3, 3, 3, 3), (0.010,) * 4, 0.0),
        ((3, 3, 3, 3), (0.010,) * 4, 0.02),
        ((3, 3, 3, 3), (0.002, 0.010, 0.002, 0.010), 0.02),
        ((3, 10, 3, 10), (0.010,) * 4, 0.0),
        ((3, 10, 3, 10), (0.010, 0.002, 0.010, 0.002), 0.0),
        ((5, 5, 5, 5), (0.0,) * 4, 0.04),
    ],
)
def test_methods_that_do_not_differ_are_seldom_said_to(num_trainings, seed_deviations, method_by_case):
    assert family_wise_error(simulated_studies(400, num_trainings, seed_deviations, 50, method_by_case)) <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("num_trainings", [1, 3])
def test_verdicts_on_methods_that_do_not_differ(num_trainings):
    """400 studies of 4 methods; with one training nothing is ever said about methods."""
    settings = CompareSettings(metrics=("Dice",))
    studies = zip(*simulated_studies(400, (num_trainings,) * 4, (0.005,) * 4), strict=True)
    wrong = 0
    for study in studies:
        methods = [MethodScores(str(number), scores, 0) for number, scores in enumerate(study)]
        tests = methods_tests(list(combinations(methods, 2)), settings.primary, settings)
        assert all((test.verdict == NOT_TESTABLE) == (num_trainings == 1) for test in tests)
        wrong += any(test.verdict in (BETTER, WORSE) for test in tests)
    assert wrong <= (0 if num_trainings == 1 else 0.08 * 400)


@pytest.mark.slow
@pytest.mark.parametrize("method_by_case", [0.0, 0.02])
def test_two_points_of_dice_are_found_with_five_trainings(method_by_case):
    methods = simulated_studies(2000, (5, 5), (0.005,) * 2, 50, method_by_case, gains=(0.02, 0.0))
    assert np.mean(p_values(methods) < ALPHA) >= 0.90


@pytest.mark.slow
@pytest.mark.parametrize("num_trainings", [(3, 3), (5, 5), (3, 10)])
@pytest.mark.parametrize("seed_deviations", [(0.005, 0.005), (0.010, 0.002)])
def test_interval_of_methods_covers_their_difference(num_trainings, seed_deviations):
    result: MethodDifference = method_difference(*simulated_studies(2000, num_trainings, seed_deviations, 50, 0.02))
    low, high = result.interval(ALPHA)
    assert np.mean((low <= 0) & (high >= 0)) >= 0.92
