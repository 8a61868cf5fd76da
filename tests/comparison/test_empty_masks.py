from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.comparison.empty_masks import apply_empty_policy, count_missed
from nnunetv2.comparison.metric import COMPUTED, METRICS

# One run and class; cases: both empty, only the reference, only the prediction, none.
NUM_REFERENCE = np.array([[0], [0], [5], [5]])
NUM_PREDICTED = np.array([[[0], [3], [0], [4]]])
DIAGONALS = np.array([10.0, 20.0, 30.0, 40.0])
OVERLAPS, DISTANCES = ("Dice", "IoU", "NSD"), ("HD95", "ASSD")
NAN = np.nan


def scores(metric: str, policy: str, measured=(NAN, NAN, NAN, 0.75)) -> list[float]:
    values = np.reshape(measured, (1, 4, 1)).astype(float)
    return apply_empty_policy(metric, values, NUM_REFERENCE, NUM_PREDICTED, DIAGONALS, policy).ravel().tolist()


@pytest.mark.parametrize(
    ("metrics", "policy", "expected"),
    [
        (OVERLAPS, "exclude", [NAN, NAN, 0.0, 0.75]),
        (OVERLAPS, "one", [1.0, 0.0, 0.0, 0.75]),
        (DISTANCES, "exclude", [NAN, NAN, 30.0, 0.75]),
        (DISTANCES, "one", [NAN, NAN, 30.0, 0.75]),
    ],
)
def test_empty_masks_get_exact_scores(metrics, policy, expected):
    for metric in metrics:
        np.testing.assert_array_equal(scores(metric, policy), expected)


def test_overlap_that_is_measured_as_zero_with_an_empty_reference_does_not_count_either():
    np.testing.assert_array_equal(scores("Dice", "exclude", [NAN, 0.0, 0.0, 0.5]), [NAN, NAN, 0.0, 0.5])


@pytest.mark.parametrize("policy", ["exclude", "one"])
@pytest.mark.parametrize("metric", METRICS)
def test_cases_that_count_are_the_same_for_all_models(metric, policy):
    random = np.random.default_rng(0)
    num_reference, num_predicted = random.integers(0, 2, (20, 3)), random.integers(0, 2, (4, 20, 3))
    rule = METRICS[metric].empty_masks
    is_measured = (num_reference > 0) & ((num_predicted > 0) | (rule.missed == COMPUTED))
    measured = np.where(is_measured | ((num_reference == 0) & (rule.absent == COMPUTED)), 0.5, NAN)
    found = np.isnan(apply_empty_policy(metric, measured, num_reference, num_predicted, np.ones(20), policy))
    assert (found == found[0]).all()
    assert found.any() == (rule.absent is None or policy == "exclude")


def test_missed_cases_are_counted_for_each_run_and_class():
    num_reference = np.array([[1, 0], [2, 3], [4, 5]])
    num_predicted = np.array([[[0, 0], [0, 1], [1, 0]], [[1, 1], [1, 1], [1, 1]]])
    assert count_missed(num_reference, num_predicted).tolist() == [[2, 1], [0, 0]]
