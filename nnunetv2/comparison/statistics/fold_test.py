"""A test on the scores of cross-validation folds, which share their training cases."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from nnunetv2.errors import UsageError


class FoldTest(NamedTuple):
    """Outcome of the corrected resampled t-test."""

    t: float
    p: float
    """two-sided"""
    degrees_of_freedom: int


def corrected_resampled_t(differences: np.ndarray, train_cases: float, test_cases: float) -> FoldTest:
    """Tests whether the mean of paired differences of fold scores (K,) is 0.

    Folds share training cases, so their differences are correlated. The variance of their mean is therefore taken as
    s^2 (1 / K + test_cases / train_cases) instead of s^2 / K.

    Args:
        train_cases: that one fold trains on.
        test_cases: that one fold is validated on.

    Raises:
        UsageError: there are fewer than two folds, or no cases.

    Source: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003).
    """
    num_folds = len(differences)
    if num_folds < 2 or train_cases <= 0 or test_cases <= 0:
        raise UsageError(
            f"{num_folds} folds of {train_cases} training and {test_cases} test cases are given; "
            "the corrected t-test needs at least 2 folds and cases of both kinds"
        )
    mean = float(np.mean(differences))
    variance = float(np.var(differences, ddof=1)) * (1 / num_folds + test_cases / train_cases)
    if variance == 0:
        return FoldTest(0.0 if mean == 0 else float(np.copysign(np.inf, mean)), float(mean == 0), num_folds - 1)
    t = mean / variance**0.5
    return FoldTest(t, float(2 * stdtr(num_folds - 1, -abs(t))), num_folds - 1)
