"""Which label maps hold only the labels of dataset.json."""

from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.preprocessing.label_values import declared_labels, label_problems, range_of


def labels(*values: float, dtype: type = np.float32) -> np.ndarray:
    return np.array(values, dtype=dtype).reshape(1, 1, 1, -1)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16])
def test_expected_labels(dtype):
    assert label_problems(labels(0, 2, 1, 2, dtype=dtype), [0, 1, 2], "file") == []
    assert label_problems(labels(0, 3, dtype=dtype), [0, 1, 2, 3], "file") == []


@pytest.mark.parametrize(
    ("values", "listed"),
    [
        ((0, 4, 4, 1), "4 (2 voxels)"),
        ((-1, 0), "-1 (1 voxels)"),
        ((0.5, 1), "0.5 (1 voxels)"),
        ((np.nan, 1), "nan (1 voxels)"),
        ((np.inf, 1), "inf (1 voxels)"),
        ((1e12, 1), "1e+12 (1 voxels)"),
    ],
)
def test_other_values_are_counted(values, listed):
    (problem,) = label_problems(labels(*values), [0, 1, 2], "file")
    assert f"unexpected labels {listed}; dataset.json names [0, 1, 2]" in problem


def test_a_value_in_a_gap_of_the_labels():
    (problem,) = label_problems(labels(0, 2, 3), [0, 1, 3], "file")
    assert "unexpected labels 2 (1 voxels)" in problem


def test_range():
    assert range_of(labels(3, -2, 0)) == (-2, 3, True)
    assert range_of(labels(0, 1.5)) == (0, 1.5, False)
    assert not range_of(labels(np.nan, 1)).fits([0, 1])


def test_declared_labels():
    content = {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}}
    assert declared_labels(content) == [0, 1, 2, 3]
