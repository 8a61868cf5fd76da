"""Resizing of label maps against the library call that it replaces, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation

from nnunetv2.preprocessing.resampling.label_resizing import nearest_indices, resize_labels, resize_nearest


@pytest.mark.parametrize("seed", range(60))
def test_equals_batchgenerators(seed):
    random = np.random.default_rng(seed)
    rank = 2 + seed % 2
    shape, new_shape = random.integers(1, 12, rank), tuple(random.integers(1, 20, rank))
    if seed % 3 == 0:  # whole and half factors, where labels tie all over the place
        new_shape = tuple(max(1, int(n * random.choice([0.5, 1, 1.5, 2, 3]))) for n in shape)
    labels = random.integers(-1, random.integers(1, 14), shape).astype([np.int8, np.int16, np.float32][seed % 3])
    expected = resize_segmentation(labels.astype(float), new_shape, order=1)
    result = resize_labels(labels, new_shape)
    assert result.dtype == labels.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("order", [0, 3])
def test_other_orders_equal_batchgenerators(order):
    labels = np.random.default_rng(1).integers(0, 4, (6, 7, 5)).astype(float)
    np.testing.assert_array_equal(
        resize_labels(labels, (9, 5, 10), order), resize_segmentation(labels, (9, 5, 10), order=order)
    )


def test_more_voxels_than_one_step_holds():
    labels = np.random.default_rng(2).integers(0, 3, (30, 40, 20)).astype(np.int8)
    expected = resize_segmentation(labels.astype(float), (45, 40, 31), order=1)
    np.testing.assert_array_equal(resize_labels(labels, (45, 40, 31)), expected)


def test_no_value_appears_between_two_labels():
    assert resize_labels(np.array([[0, 0, 2, 2]]), (1, 7)).tolist() == [[0, 0, 0, 2, 2, 2, 2]]


def test_labels_in_fortran_order_and_views_are_read_correctly():
    labels = np.random.default_rng(4).integers(0, 3, (8, 9, 10)).astype(np.int8)
    expected = resize_labels(labels, (5, 13, 12))
    np.testing.assert_array_equal(resize_labels(np.asfortranarray(labels), (5, 13, 12)), expected)


def test_nearest_by_hand():
    assert nearest_indices(4, 8).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resize_nearest(np.arange(6).reshape(2, 3), (4, 3)).tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
