"""Argmax in groups against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.utilities.label_handling.running_argmax import RunningArgmax, argmax_of_classes

TYPES = ["float16", "float32", "float64", "int8", "uint16"]


def scores_with_ties(num_classes: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    scores = np.random.default_rng(0).integers(-5 if dtype[0] != "u" else 0, 5, (num_classes, *shape))
    return (scores / 8 if dtype.startswith("float") else scores).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_equals_numpy(dtype: str) -> None:
    for num_classes, shape in ((1, (3,)), (7, (50, 41, 37)), (300, (11, 2)), (2, ())):
        scores = scores_with_ties(num_classes, shape, dtype)
        found = argmax_of_classes(scores)
        np.testing.assert_array_equal(found, scores.argmax(0))
        assert found.dtype == np.int64


@pytest.mark.parametrize("group", [1, 3, 7])
def test_groups_give_what_all_classes_give(group: int) -> None:
    scores = scores_with_ties(7, (5, 4, 3), "float16")
    argmax = RunningArgmax(7)
    for first in range(0, 7, group):
        argmax.add(scores[first : first + group])
    np.testing.assert_array_equal(argmax.labels, scores.argmax(0))
    assert argmax.labels.dtype == np.uint8


def test_numbers_above_255_need_16_bits() -> None:
    argmax = RunningArgmax(257)
    argmax.add(np.arange(257.0)[:, None])
    assert (argmax.labels.tolist(), argmax.labels.dtype) == ([256], np.uint16)


def test_views_with_other_strides() -> None:
    scores = scores_with_ties(4, (6, 5, 3), "float16").transpose(0, 3, 1, 2)[:, :, ::-1]
    np.testing.assert_array_equal(argmax_of_classes(scores), scores.argmax(0))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_extremes_and_nan_as_numpy(dtype: str) -> None:
    values = [-np.inf, np.inf, np.nan, -0.0, 0.0, 1.0]
    scores = np.stack(np.meshgrid(values, values, values)).reshape(3, -1).astype(dtype)
    np.testing.assert_array_equal(argmax_of_classes(scores), scores.argmax(0))
    without_nan = scores[:, ~np.isnan(scores).any(0)]
    np.testing.assert_array_equal(argmax_of_classes(without_nan), without_nan.argmax(0))
