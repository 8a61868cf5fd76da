"""Ranks and their agreement."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata

from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.comparison.statistics import ranks
from nnunetv2.comparison.statistics.ranking import best_ranks, kendall_tau, mean_ranks, schemes_agree
from tests.comparison.statistics.tables import score_table

SETTINGS = CompareSettings(metrics=("Dice",), num_resamples=500)


def test_kendall_tau_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for num_methods in (2, 3, 7):
        reference = rng.integers(0, 4, num_methods).astype(float)
        reference[:2] = 0, 1
        scores = rng.integers(0, 4, (30, num_methods)).astype(float)
        expected = [kendalltau(row, reference).statistic for row in scores]
        np.testing.assert_allclose(kendall_tau(scores, reference), expected, rtol=0, atol=1e-12)


def test_ranks_are_those_of_scipy():
    scores = np.random.default_rng(0).integers(0, 4, (20, 6))
    np.testing.assert_array_equal(mean_ranks(scores), rankdata(-scores, axis=1))
    np.testing.assert_array_equal(best_ranks(scores), rankdata(-scores, axis=1, method="min"))


def test_schemes_that_disagree_are_seen():
    # b wins most cases narrowly and loses one by far.
    first = np.full((1, 21), 0.8)
    second = np.where(np.arange(21) == 0, 0.0, 0.81)[None]
    by_method, (stability,) = ranks(score_table({"a": first, "b": second}), SETTINGS)
    assert [each.mean_then_rank for each in by_method] == [1, 2]
    assert [each.rank_then_mean for each in by_method] == pytest.approx([2 - 1 / 21, 1 + 1 / 21])
    assert [each.test_based for each in by_method] == [1.5, 1.5]  # a mixed verdict is no win for either
    assert not stability.schemes_agree
    # The mean of a sample has b behind unless the lost case is not drawn: (20 / 21)^21 = 0.36.
    assert by_method[0].frequencies[0] == pytest.approx(0.64, abs=0.07)
    assert by_method[1].frequencies == by_method[0].frequencies[::-1]
    assert (stability.kendall_tau.low, stability.kendall_tau.high) == (-1, 1)


def test_ties_of_one_scheme_contradict_no_other():
    tied, ordered = np.array([1.5, 1.5, 3]), np.array([1.0, 2, 3])
    assert schemes_agree(tied, ordered, np.array([2.0, 2, 2]))
    assert not schemes_agree(tied, ordered, np.array([2.0, 1, 3]))
    assert not schemes_agree(np.array([1.0, 2.5, 2.5]), np.array([2.5, 2.5, 1.0]))


def test_the_interval_of_tau_leaves_out_a_fortieth_at_each_end():
    # Six of 200 cases are lost by so much that b is ahead where eleven or more are drawn: in 4 % of the samples.
    lost = np.arange(200) < 6
    table = score_table({"a": np.where(lost, 0.0, 0.0525)[None], "b": np.where(lost, 0.9475, 0.0)[None]})
    by_method, (stability,) = ranks(table, CompareSettings(metrics=("Dice",), num_resamples=4000))
    assert 0.03 < by_method[1].frequencies[0] < 0.048
    assert (stability.kendall_tau.low, stability.kendall_tau.high) == (-1, 1)
