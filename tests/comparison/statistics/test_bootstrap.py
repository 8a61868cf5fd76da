"""Resampled means and BCa intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from nnunetv2.comparison.statistics.bootstrap import bca_intervals, bootstrap_means, random_stream


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("num_cases", [3, 10, 60])
def test_interval_is_that_of_scipy(num_cases, scale):
    rng = np.random.default_rng(num_cases)
    values = scale * np.stack(
        [rng.gamma(2, 1, num_cases), rng.standard_normal(num_cases), rng.random(num_cases) ** 9], 1
    )
    values = np.round(values * 2**20) / 2**20  # so that scipy's sums are exact, too, and equal means are equal
    ours = bca_intervals(values, 0.1, 2000, np.random.default_rng(7))
    for column, interval in zip(values.T, ours, strict=True):
        expected = bootstrap(
            (column,), np.mean, n_resamples=2000, confidence_level=0.9, method="BCa", rng=np.random.default_rng(7)
        ).confidence_interval
        np.testing.assert_allclose((interval.low, interval.high), expected, rtol=1e-9, atol=1e-9 * scale)


def test_blocks_draw_what_one_draw_would(monkeypatch):
    values = np.random.default_rng(0).random((20, 3))
    whole = bootstrap_means(values, 500, np.random.default_rng(1))[1]
    monkeypatch.setattr("nnunetv2.comparison.statistics.bootstrap.BLOCK", 20 * 33)
    np.testing.assert_array_equal(bootstrap_means(values, 500, np.random.default_rng(1))[1], whole)


def test_equal_columns_have_equal_means_in_every_sample():
    values = np.random.default_rng(0).random((37, 1)) * 700
    means, resampled = bootstrap_means(np.repeat(values, 13, axis=1), 400, np.random.default_rng(1))
    assert np.ptp(means) == 0
    assert np.all(np.ptp(resampled, axis=1) == 0)
    np.testing.assert_allclose(means[0], values.mean(), rtol=1e-13)


def test_opposite_differences_have_opposite_intervals():
    values = np.random.default_rng(0).gamma(2, 1, (30, 1))
    there, back = bca_intervals(np.hstack([values, -values]), 0.05, 1000, np.random.default_rng(1))
    np.testing.assert_allclose((back.low, back.high), (-there.high, -there.low), rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_interval_of_equal_values_is_that_value(value):
    columns = np.stack([np.full(10, 7.0), np.full(10, value), np.arange(10.0)], axis=1)
    _, interval, varying = bca_intervals(columns, 0.05, 200, np.random.default_rng(0))
    assert (interval.low, interval.high) == (value, value)
    assert varying.low < 4.5 < varying.high


@pytest.mark.parametrize("num_cases", [0, 1])
def test_one_case_has_no_interval(num_cases):
    (interval,) = bca_intervals(np.ones((num_cases, 1)), 0.05, 200, np.random.default_rng(0))
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)


def test_streams_follow_from_seed_and_names_on_every_machine():
    # Recorded: another release of the package has to draw the same.
    assert random_stream(0, "Dice", None).integers(0, 1000, 4).tolist() == [606, 689, 847, 183]
    drawn = [random_stream(*key).random() for key in ((0, "a", "b"), (1, "a", "b"), (0, "ab", ""), (0, "a", None))]
    assert len(set(drawn)) == 4
    assert random_stream(-1, "a").random() == random_stream(-1, "a").random()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_bca_interval_of_a_skewed_mean_difference_covers_it(sign):
    """400 studies of 50 cases; each column of the values is a study of its own."""
    rng = np.random.default_rng(0)
    skewed = rng.gamma(2, 0.02, (50, 400)) - rng.gamma(2, 0.01, (50, 400)) + 0.01 * rng.standard_normal((50, 400))
    intervals = bca_intervals(sign * skewed, 0.05, 2000, np.random.default_rng(1))
    covered = np.mean([interval.low <= sign * 0.02 <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.98
