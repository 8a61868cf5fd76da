"""The corrected resampled t-test of fold scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as t_distribution

from nnunetv2.comparison.statistics.fold_test import corrected_resampled_t
from nnunetv2.errors import UsageError


def test_by_hand():
    # Mean 0.03, variance 0.00025; times 1/5 + 20/80 is 0.0001125.
    result = corrected_resampled_t(np.array([0.01, 0.02, 0.03, 0.04, 0.05]), train_cases=80, test_cases=20)
    assert result.t == pytest.approx(0.03 / 0.0001125**0.5)
    assert result.degrees_of_freedom == 4
    assert result.p == pytest.approx(2 * t_distribution.sf(2.8284271247, 4))


def test_folds_without_variance():
    assert corrected_resampled_t(np.zeros(5), 4, 1)[:2] == (0, 1)
    assert corrected_resampled_t(np.full(5, -0.5), 4, 1)[:2] == (-np.inf, 0)


@pytest.mark.parametrize(("num_folds", "train_cases", "test_cases"), [(1, 4, 1), (5, 0, 1), (5, 4, 0)])
def test_too_little_is_refused(num_folds, train_cases, test_cases):
    with pytest.raises(UsageError, match="needs at least 2 folds and cases of both kinds"):
        corrected_resampled_t(np.ones(num_folds), train_cases, test_cases)
