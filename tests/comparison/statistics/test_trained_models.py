"""Tests of trained models: signed-rank test, its effect sizes, and Holm's adjustment."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata, wilcoxon

from nnunetv2.comparison.statistics.trained_models import hodges_lehmann, rank_biserial, signed_rank_p
from nnunetv2.comparison.statistics.verdicts import holm


def p_by_enumeration(differences: np.ndarray) -> float:
    """Twice the share of all sign patterns whose rank sum is as extreme."""
    kept = differences[differences != 0]
    ranks = rankdata(np.abs(kept))
    sums = np.array([np.dot(ranks, signs) for signs in product((0, 1), repeat=len(kept))])
    observed = ranks[kept > 0].sum()
    return min(1.0, 2 * min(np.mean(sums <= observed + 1e-9), np.mean(sums >= observed - 1e-9)))


@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("num_cases", [2, 5, 8])
def test_p_of_few_cases_is_that_of_all_sign_patterns(num_cases, has_ties):
    rng = np.random.default_rng(num_cases)
    for _ in range(2):
        differences = rng.standard_normal(num_cases) + 0.5
        if has_ties:
            differences = np.round(differences)
        if np.any(differences):
            assert signed_rank_p(differences) == pytest.approx(p_by_enumeration(differences), abs=1e-12)


@pytest.mark.parametrize("num_cases", [14, 49, 51, 200])
@pytest.mark.parametrize("decimals", [1, 2, 15])
def test_p_is_that_of_scipy(num_cases, decimals):
    differences = np.round(0.3 + np.random.default_rng(num_cases + decimals).standard_normal(num_cases), decimals)
    expected = wilcoxon(differences + 0.7, np.full(num_cases, 0.7), zero_method="wilcox")
    assert signed_rank_p(np.round(differences, 12)) == pytest.approx(
        wilcoxon(differences, zero_method="wilcox").pvalue, abs=1e-12
    )
    if decimals == 15:
        assert signed_rank_p(differences) == pytest.approx(expected.pvalue, abs=1e-12)


def test_no_difference_at_all_is_p_1_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert signed_rank_p(np.zeros(30)) == 1
        assert rank_biserial(np.zeros(30)) == 0
        assert np.isnan(signed_rank_p(np.zeros(0)))
        assert np.isnan(rank_biserial(np.zeros(0)))
        assert np.isnan(hodges_lehmann(np.zeros(0)))


def test_rank_biserial_by_hand():
    # Ranks of 1 1 2 3 are 1.5 1.5 3 4: 1.5 + 3 + 4 speak for, 1.5 against, the zero does not count.
    assert rank_biserial(np.array([1, -1, 2, 3, 0])) == pytest.approx((8.5 - 1.5) / 10)
    assert rank_biserial(np.array([-3.0, -1.0])) == -1
    assert rank_biserial(np.array([0.5, 0.7, 0.1])) == 1


def test_hodges_lehmann_by_hand():
    # Means of two of 1 2 6, each with itself: 1 1.5 2 3.5 4 6, of which the median is 2.75.
    assert hodges_lehmann(np.array([2.0, 6.0, 1.0])) == pytest.approx(2.75, abs=1e-14)
    assert hodges_lehmann(np.array([-4.0])) == -4


@pytest.mark.parametrize("decimals", [1, 15])
@pytest.mark.parametrize("num_cases", [2, 4, 31, 32])
def test_hodges_lehmann_is_the_median_of_all_means_of_two(num_cases, decimals):
    values = np.round(np.random.default_rng(num_cases).gamma(1, 1, num_cases) - 0.4, decimals)
    first, second = np.triu_indices(num_cases)
    assert hodges_lehmann(values) == pytest.approx(np.median((values[first] + values[second]) / 2), abs=1e-14)


def test_holm_by_hand():
    # 4 * 0.01; 3 * 0.02 = 0.06; 2 * 0.03 = 0.06; then 0.04, which may not be below those before it.
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.02])), [0.06, 0.04, 0.06, 0.06], rtol=1e-14)
    np.testing.assert_array_equal(holm(np.array([0.9, 0.6])), [1, 1])
    assert holm(np.array([])).shape == (0,)


@pytest.mark.slow
def test_holm_is_that_of_statsmodels():
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    rng = np.random.default_rng(0)
    for num_tests in range(1, 30):
        p_values = np.round(rng.random(num_tests) ** 3, 2)
        np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-12, rtol=0)
