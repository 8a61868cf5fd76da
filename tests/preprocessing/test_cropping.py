"""Cropping to the nonzero region."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from nnunetv2.errors import UsageError
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask, crop_to_nonzero


@pytest.mark.parametrize("seed", range(10))
def test_mask_is_the_filled_union_of_the_channels(seed):
    random = np.random.default_rng(seed)
    data = random.integers(0, 2, (2, *random.integers(2, 12, 2 + seed % 2)))
    data[1] *= seed % 3 == 0
    np.testing.assert_array_equal(create_nonzero_mask(data), binary_fill_holes((data != 0).any(axis=0)))


def test_a_hole_is_filled_but_not_a_bay():
    ring = np.ones((1, 5, 5))
    ring[0, 2, 2] = 0
    assert create_nonzero_mask(ring).all()
    ring[0, 2, 3:] = 0
    assert create_nonzero_mask(ring).sum() == 22


def test_image_and_labels_are_cropped_alike_and_the_outside_is_marked():
    data = np.zeros((1, 4, 5, 6), np.float32)
    data[0, 1:3, 2, 1:5] = 7
    data[0, 1, 3, 1] = 7
    seg = np.zeros((1, 4, 5, 6), np.int8)
    seg[0, 2, 3, 4] = 2  # a label outside the nonzero region stays
    before = seg.copy()
    cropped, cropped_seg, bbox = crop_to_nonzero(data, seg)
    assert bbox == [[1, 3], [2, 4], [1, 5]]
    assert cropped.shape == cropped_seg.shape == (1, 2, 2, 4)
    assert cropped_seg[0].tolist() == [[[0, 0, 0, 0], [0, -1, -1, -1]], [[0, 0, 0, 0], [-1, -1, -1, 2]]]
    np.testing.assert_array_equal(seg, before)


def test_without_labels_the_region_itself_is_returned():
    data = np.zeros((1, 2, 2, 3))
    data[0, 0, 0, 0] = data[0, 1, 1, 2] = 1
    _, region, _ = crop_to_nonzero(data)
    assert region.dtype == np.int8
    assert region[0].tolist() == [[[0, -1, -1], [-1, -1, -1]], [[-1, -1, -1], [-1, -1, 0]]]


def test_an_image_of_zeros_is_not_cropped():
    cropped, seg, bbox = crop_to_nonzero(np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 3, 4)))
    assert bbox == [[0, 2], [0, 3], [0, 4]] and cropped.shape == (1, 2, 3, 4) and (seg == -1).all()


def test_rank_is_checked():
    with pytest.raises(UsageError, match=r"\(3, 4\)"):
        create_nonzero_mask(np.zeros((3, 4)))


@pytest.mark.parametrize(("given", "kept"), [("uint8", "int16"), ("uint16", "int32"), ("int16", "int16")])
def test_labels_without_a_sign_are_marked_too(given, kept):
    data, seg = np.zeros((1, 4, 4, 4), np.float32), np.zeros((1, 4, 4, 4), given)
    data[0, 0, 0, 0] = data[0, 3, 3, 3] = 1
    seg[0, 0, 0, 0] = np.iinfo(given).max
    _, cropped, _ = crop_to_nonzero(data, seg)
    assert cropped.dtype == kept
    assert (cropped[0, 0, 0, 0], cropped[0, 0, 0, 1], cropped[0, 3, 3, 3]) == (np.iinfo(given).max, -1, 0)
