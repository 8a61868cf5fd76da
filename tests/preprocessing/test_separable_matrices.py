"""Resizing by matrices against the library call that it replaces."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.transform import resize

from nnunetv2.preprocessing.resampling import separable_matrices
from nnunetv2.preprocessing.resampling.separable_matrices import (
    _write_half,
    axis_operator,
    resize_planes,
    resize_volume,
)


def _reference(image, shape, order):
    return resize(image, shape, order, mode="edge", anti_aliasing=False)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_volume_equals_skimage(order, seed):
    random = np.random.default_rng(seed)
    shape, new_shape = tuple(random.integers(1, 24, 3)), tuple(random.integers(1, 40, 3))
    volume, out = random.standard_normal(shape), np.empty(new_shape)
    resize_volume(volume, order, out)
    np.testing.assert_allclose(out, _reference(volume, new_shape, order), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("length", "new_length"), [(7, 200), (200, 7), (150, 149), (64, 128)])
def test_axes_longer_than_a_stripe_equal_skimage(length, new_length):
    random = np.random.default_rng(0)
    volume, out = random.standard_normal((length, 5, 4)), np.empty((new_length, 6, 4))
    resize_volume(volume, 3, out)
    np.testing.assert_allclose(out, _reference(volume, out.shape, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_of_planes_give_what_all_planes_give(order, dtype, monkeypatch):
    volume = np.random.default_rng(0).standard_normal((9, 11, 7)).astype(dtype)
    for shape in ((9, 17, 12), (20, 17, 12)):
        results = []
        for values in (1, 3 * 17 * 12, 10**9):
            monkeypatch.setattr(separable_matrices, "_VALUES_PER_GROUP", values)
            results += [np.empty(shape, dtype), np.empty((9, 17, 12), dtype)]
            resize_volume(volume, order, results[-2])
            resize_planes(volume, order, results[-1])
        for other in (results[2:4], results[4:]):
            np.testing.assert_allclose(other[0], results[0], rtol=0, atol=1e-6)
            np.testing.assert_allclose(other[1], results[1], rtol=0, atol=1e-6)
    for plane, resized in zip(volume, results[-1], strict=True):
        assert plane.min() <= resized.min() <= resized.max() <= plane.max()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_whichever_axis_goes_first_the_result_is_the_same(axis):
    random = np.random.default_rng(axis)
    new_shape = [20, 22, 24]
    new_shape[axis] = 5
    volume, out = random.standard_normal((10, 11, 12)), np.empty(new_shape)
    resize_volume(volume, 3, out)
    np.testing.assert_allclose(out, _reference(volume, new_shape, 3), rtol=0, atol=1e-12)


def test_planes_equal_skimage_slice_by_slice():
    random = np.random.default_rng(3)
    planes, out = random.standard_normal((4, 9, 13)), np.empty((4, 14, 8))
    resize_planes(planes, 3, out)
    expected = np.stack([_reference(plane, (14, 8), 3) for plane in planes])
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)


def test_result_stays_within_the_range_of_the_image():
    step = np.zeros((1, 1, 12))
    step[..., 6:] = 1
    out = np.empty((1, 1, 50))
    resize_volume(step, 3, out)
    assert (out.min(), out.max()) == (0, 1)
    without_limit = axis_operator(12, 50, 3).along_columns(step[0])
    assert without_limit.max() > 1.01  # the spline overshoots, so the limit does something


@pytest.mark.parametrize("order", [1, 3])
def test_a_constant_image_stays_constant(order):
    out = np.empty((7, 3, 30), dtype=np.float32)
    resize_volume(np.full((5, 6, 7), 2.5, dtype=np.float32), order, out)
    np.testing.assert_array_equal(out, np.float32(2.5))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_means_stay_within_the_range_without_a_limit(dtype):
    """Equal to clipping in float64, for values that are all the same up to rounding, and for values across zero."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        centre = random.choice([-3.7, 0.0, 1e-4, 0.1, 11.3])
        volume = (centre + random.standard_normal((5, 6, 7)) * 10.0 ** random.integers(-4, 2)).astype(dtype)
        exact, out = np.empty((11, 13, 9)), np.empty((11, 13, 9), dtype)
        resize_volume(volume, 1, exact)  # float64 is clipped
        resize_volume(volume, 1, out)
        np.testing.assert_array_equal(out, exact.astype(dtype))
        assert volume.min() <= out.min() <= out.max() <= volume.max()


def test_half_precision_is_rounded_as_numpy_rounds():
    """All values of half precision, the ties between them, and their neighbours in float64, also below the smallest."""
    values = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)
    values = values[np.isfinite(values)]
    ties = (np.unique(values)[1:] + np.unique(values)[:-1]) / 2
    both = np.concatenate(
        [values, ties, ties * (1 + 2.0**-30), [65519.9, 65520.0, 1e300, np.inf, -np.inf, np.nan, 1e-300]]
    )
    values = np.concatenate([both, np.nextafter(both, np.inf), np.nextafter(both, -np.inf)])[None]
    with np.errstate(all="ignore"):
        expected = values.astype(np.float16)
        out = np.empty_like(expected)
        _write_half(values, out)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


def test_rows_of_an_operator_add_up_to_one():
    operator = axis_operator(37, 90, 3)
    np.testing.assert_allclose(operator.along_rows(np.ones((37, 1))), 1, atol=1e-13)
    assert axis_operator(37, 37, 3) is None
