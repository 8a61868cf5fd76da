"""Bland-Altman of volumes, by hand."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from nnunetv2.comparison.scores import ScoreTable
from nnunetv2.comparison.statistics.volume_agreement import limits_of_agreement, volume_agreement
from tests.comparison.statistics.tables import score_table


@pytest.fixture
def table() -> ScoreTable:
    """Method a twice, b once; four cases, each of voxels of another size, the third of which lacks the class."""
    made = score_table(
        {"a": np.array([[0.5, 0.5, 0.5, 0.5], [0.6, 0.5, 0.5, 0.5]]), "b": np.full((1, 4), 0.5)},
        num_reference=np.array([[10], [20], [0], [40]]),
        num_predicted=np.array([[[12], [20], [7], [30]], [[14], [18], [0], [0]], [[10], [20], [500], [40]]]),
    )
    return replace(made, voxel_volume=np.array([2.0, 1.0, 3.0, 4.0]))


def test_limits_by_hand():
    bias, limits = limits_of_agreement(np.array([1.0, 2.0, 3.0, 6.0]))
    assert bias == 3
    assert (limits.low, limits.high) == pytest.approx((3 - 1.96 * sqrt(14 / 3), 3 + 1.96 * sqrt(14 / 3)), abs=1e-12)


def test_few_cases_have_no_limits():
    bias, limits = limits_of_agreement(np.array([-4.0]))
    assert bias == -4
    assert np.isnan([limits.low, limits.high]).all()
    bias, limits = limits_of_agreement(np.array([]))
    assert np.isnan([bias, limits.low, limits.high]).all()


def test_volumes_are_means_over_the_trainings_where_the_reference_has_the_class(table: ScoreTable):
    first, second = volume_agreement(table)
    assert (first.method, second.method, first.class_name) == ("a", "b", "organ")
    # Predicted by a: 13 voxels of 2 mm^3, 19 of 1 and 15 of 4.
    assert first.differences.tolist() == [6, -1, -100]
    assert first.means.tolist() == [23, 19.5, 110]
    assert first.bias == pytest.approx(-95 / 3, abs=1e-12)
    assert second.differences.tolist() == [0, 0, 0]
    assert (second.bias, second.limits.low, second.limits.high) == (0, 0, 0)


def test_a_copy_of_a_training_counts_once(table: ScoreTable):
    copied = [0, 0, 1, 2]
    values = {name: each[copied] for name, each in table.values.items()}
    runs = tuple(table.runs[place] for place in copied)
    again = replace(table, runs=runs, values=values, num_predicted=table.num_predicted[copied])
    assert volume_agreement(again)[0].differences.tolist() == [6, -1, -100]


def test_a_class_that_no_reference_has_counts_in_no_case(table: ScoreTable):
    found = volume_agreement(replace(table, num_reference=np.zeros((4, 1), dtype=int)))
    assert [len(each.means) for each in found] == [0, 0]
