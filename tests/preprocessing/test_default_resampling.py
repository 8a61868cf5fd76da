"""The resampling functions that plans name: decisions, and results against a plain composition of library calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgenerators.augmentations.utils import resize_segmentation
from scipy.ndimage import map_coordinates
from skimage.transform import resize

from nnunetv2.errors import UsageError
from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape,
    determine_do_sep_z_and_axis,
    resample_data_or_seg,
    resample_data_or_seg_to_shape,
    resample_data_or_seg_to_spacing,
)
from nnunetv2.preprocessing.resampling.no_resampling import no_resampling_hack
from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name


def reference_separate(volume, new_shape, axis, order, order_z, is_seg):
    """Slices along `axis` one by one with skimage or batchgenerators, then `map_coordinates` over the volume."""
    volume = np.moveaxis(volume.astype(float), axis, 0)
    new = np.moveaxis(np.empty(new_shape), axis, 0).shape
    if is_seg:
        planes = np.stack([resize_segmentation(p, new[1:], order) for p in volume])
    else:
        planes = np.stack([resize(p, new[1:], order, mode="edge", anti_aliasing=False) for p in volume])
    centres = np.indices(new, dtype=float)
    centres[0] = len(planes) / new[0] * (centres[0] + 0.5) - 0.5
    return np.moveaxis(map_coordinates(planes, centres, order=order_z, mode="nearest"), 0, axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order_z", [0, 1, 3])
@pytest.mark.parametrize(("order", "new_shape"), [(3, (12, 9, 15)), (1, (5, 16, 6)), (0, (9, 9, 9))])
def test_separate_axis_equals_slice_by_slice(axis, order_z, order, new_shape):
    data = np.random.default_rng(axis).standard_normal((2, 8, 10, 9))
    result = resample_data_or_seg(data, new_shape, False, axis, order, True, order_z=order_z)
    expected = np.stack([reference_separate(c, new_shape, axis, order, order_z, False) for c in data])
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_separate_axis_of_labels_equals_slice_by_slice(axis, order):
    seg = np.random.default_rng(axis).integers(-1, 4, (1, 6, 7, 8)).astype(np.int8)
    result = resample_data_or_seg(seg, (9, 14, 5), True, axis, order, True)
    np.testing.assert_array_equal(result[0], reference_separate(seg[0], (9, 14, 5), axis, order, 0, True))


def test_float32_results_are_within_a_millionth_of_float64_ones():
    data = np.random.default_rng(0).standard_normal((1, 20, 24, 18)).astype(np.float32)
    result = resample_data_or_seg_to_shape(data, (30, 20, 40), [1, 1, 1], [1, 1, 1])
    expected = resize(data[0].astype(float), (30, 20, 40), 3, mode="edge", anti_aliasing=False)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("force", "current", "new", "expected"),
    [
        (None, (1, 1, 1), (1, 1, 1), (False, None)),
        (None, (5, 1, 1), (1, 1, 1), (True, 0)),
        (None, (1, 1, 1), (1, 1, 3.1), (True, 2)),
        (None, (1, 1, 3), (1, 1, 1), (False, None)),  # three times is not more than three times
        (None, (5, 1, 1), (1, 5, 1), (True, 0)),  # the current spacing is looked at first
        (None, (0.24, 1.25, 1.25), (1, 1, 1), (False, None)),
        (True, (1, 2, 1), (1, 1, 1), (True, 1)),
        (True, (1, 1, 1), (9, 1, 1), (False, None)),
        (False, (9, 1, 1), (9, 1, 1), (False, None)),
    ],
)
def test_which_axis_is_separate(force, current, new, expected):
    assert determine_do_sep_z_and_axis(force, current, new) == expected


def test_new_shape_covers_the_same_extent():
    assert compute_new_shape((10, 100, 64), (3, 0.8, 1), (1.5, 0.8, 4)).tolist() == [20, 100, 16]
    assert compute_new_shape((5, 7, 9), (1, 1, 1), (2, 2, 2)).tolist() == [2, 4, 4]  # 2.5, 3.5, 4.5: half to even
    with pytest.raises(UsageError, match="one entry per axis"):
        compute_new_shape((10, 100), (3, 0.8, 1), (1.5, 0.8, 4))


def test_resampling_to_a_spacing_finds_the_shape_itself():
    data = np.random.default_rng(0).standard_normal((1, 6, 8, 8))
    by_spacing = resample_data_or_seg_to_spacing(data, (6, 1, 1), (3, 0.5, 2), force_separate_z=None)
    by_shape = resample_data_or_seg_to_shape(data, (12, 16, 4), (6, 1, 1), (3, 0.5, 2), force_separate_z=None)
    np.testing.assert_array_equal(by_spacing, by_shape)


def test_data_of_the_right_shape_comes_back_as_it_is():
    data = np.zeros((1, 3, 4, 5), np.float32)
    assert resample_data_or_seg_to_shape(data, (3, 4, 5), [1, 1, 1], [1, 1, 1]) is data
    assert no_resampling_hack(data, (1, 1, 1), [1, 1, 1], [1, 1, 1]) is data


def test_tensors_and_strided_views_give_the_same_result_and_stay_as_they_are():
    data = np.random.default_rng(0).standard_normal((5, 6, 7, 2)).astype(np.float32).transpose(3, 2, 1, 0)
    before = data.copy()
    expected = resample_data_or_seg_to_shape(np.ascontiguousarray(data), (9, 4, 8), [1, 1, 1], [1, 1, 1])
    for given in (data, torch.from_numpy(data)):
        np.testing.assert_array_equal(resample_data_or_seg_to_shape(given, (9, 4, 8), [1, 1, 1], [1, 1, 1]), expected)
    np.testing.assert_array_equal(data, before)


def test_wrong_ranks_are_refused():
    with pytest.raises(UsageError, match=r"got \(3, 4, 5\)"):
        resample_data_or_seg(np.zeros((3, 4, 5)), (6, 6, 6))
    with pytest.raises(UsageError, match="which axis"):
        resample_data_or_seg(np.zeros((1, 3, 4, 5)), (6, 6, 6), do_separate_z=True)


@pytest.mark.parametrize("name", ["resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack"])
def test_functions_are_found_by_the_names_in_plans(name):
    assert recursive_find_resampling_fn_by_name(name).__name__ == name


def test_unknown_function_names_are_refused():
    with pytest.raises(UsageError, match="did you mean resample_torch_simple"):
        recursive_find_resampling_fn_by_name("resample_torch_simpel")
