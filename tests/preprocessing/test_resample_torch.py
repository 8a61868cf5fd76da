"""Resampling with torch (its label maps are compared with upstream's in test_upstream_equality)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet, resample_torch_simple


def test_linear_images_agree_with_the_default_function():
    data = np.random.default_rng(0).standard_normal((2, 9, 8, 7)).astype(np.float32)
    spacing = ([1, 1, 1], [1, 1, 1])
    expected = resample_data_or_seg_to_shape(data, (12, 5, 14), *spacing, order=1)
    np.testing.assert_allclose(resample_torch_fornnunet(data, (12, 5, 14), *spacing), expected, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_separate_axis_takes_the_nearest_slice(axis):
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 5.0
    data = np.random.default_rng(0).standard_normal((2, 6, 6, 6)).astype(np.float32)
    expected = resample_data_or_seg_to_shape(data, (7, 9, 5), spacing, spacing, order=1, force_separate_z=None)
    np.testing.assert_allclose(resample_torch_fornnunet(data, (7, 9, 5), spacing, spacing), expected, atol=1e-5)


def test_tensors_come_back_as_tensors_and_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    result = resample_torch_simple(torch.ones(1, 4, 4), [8, 8], num_threads=before + 1)
    assert isinstance(result, torch.Tensor) and result.shape == (1, 8, 8)
    assert torch.get_num_threads() == before


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(NotImplementedError, match="cubist"):
        resample_torch_simple(torch.ones(1, 4, 4), [8, 8], num_threads=before + 1, mode="cubist")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("highest", "dtype"), [(5, np.int8), (126, np.int8), (127, np.int16), (300, np.int16)])
def test_labels_keep_their_values_in_a_dtype_that_holds_them(highest, dtype):
    seg = np.zeros((1, 6, 6, 6), np.int16)
    seg[:, :3] = highest
    result = resample_torch_simple(seg, (12, 12, 12), is_seg=True, num_threads=1)
    assert result.dtype == dtype
    assert set(np.unique(result)) == {0, highest}


def test_rank_is_checked():
    with pytest.raises(UsageError, match=r"\(2, 3\)"):
        resample_torch_simple(torch.ones(2, 3), [5])


@pytest.mark.parametrize("labels", [[0, 3], [3, 0]])
@pytest.mark.parametrize("memefficient", [False, True])
def test_the_label_of_the_largest_share_wins(labels, memefficient):
    """Of ten new pixels the two in the middle have shares of 0.6 and 0.4, none of which is a clear majority."""
    result = resample_torch_simple(
        np.array([[labels]]), (1, 10), is_seg=True, num_threads=1, memefficient_seg_resampling=memefficient
    )
    assert result[0, 0].tolist() == [labels[0]] * 5 + [labels[1]] * 5
