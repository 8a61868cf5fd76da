"""Positions and weights of tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from nnunetv2.errors import UsageError
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
    pad_to_tile_size,
    tile_slicers,
)
from tests.inference.tiny_models import expected
from tests.recorded.make_inference_cases import GAUSSIANS, STEPS


@pytest.mark.parametrize(
    ("image", "tile", "step", "steps"),
    [
        (110, 64, 0.5, [0, 23, 46]),
        (64, 64, 0.5, [0]),
        (65, 64, 0.5, [0, 1]),
        (96, 64, 0.5, [0, 32]),
        (97, 64, 0.5, [0, 16, 33]),  # 16.5 is rounded to the even number
        (128, 64, 1, [0, 64]),
    ],
)
def test_steps_by_hand(image: int, tile: int, step: float, steps: list[int]) -> None:
    assert compute_steps_for_sliding_window((image,), (tile,), step) == [steps]


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_steps_equal_upstream(number: int) -> None:
    recorded = expected()
    for axis, steps in enumerate(compute_steps_for_sliding_window(*STEPS[number])):
        np.testing.assert_array_equal(steps, recorded[f"steps_{number}_{axis}"])


@pytest.mark.parametrize("tile", GAUSSIANS)
def test_gaussian_equals_upstream(tile: tuple[int, ...]) -> None:
    weights = compute_gaussian(tile, value_scaling_factor=10)
    np.testing.assert_array_equal(weights.numpy(), expected()["gaussian_" + "x".join(map(str, tile))])


def test_gaussian_equals_filtered_impulse() -> None:
    tile = (9, 14, 6)
    impulse = np.zeros(tile)
    impulse[4, 7, 3] = 1
    reference = gaussian_filter(impulse, [size / 8 for size in tile], mode="constant")
    weights = compute_gaussian(tile, dtype=torch.float64)
    np.testing.assert_allclose(weights, reference / reference.max(), rtol=1e-12)


def test_gaussian_is_positive_where_half_precision_would_be_zero() -> None:
    weights = compute_gaussian((64, 64, 64), value_scaling_factor=10)
    assert weights.min() > 0
    assert weights.max() == 10
    assert compute_gaussian((64, 64, 64), value_scaling_factor=10, dtype=torch.float64)[0, 0, 0] < 6e-8 / 2


@pytest.mark.parametrize("step", [0.0, -0.5, 1.5])
def test_step_size_out_of_range(step: float) -> None:
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        compute_steps_for_sliding_window((10,), (5,), step)


def test_image_smaller_than_a_tile() -> None:
    with pytest.raises(UsageError, match=r"size \(10, 4\) cannot be covered by tiles of size \(5, 5\)"):
        tile_slicers((10, 4), (5, 5), 0.5)


def test_steps_on_an_axis_that_is_shorter_than_a_tile() -> None:
    assert compute_steps_for_sliding_window((10, 4, 1), (5, 5, 8), 0.5) == [[0, 2, 5], [0], [0]]


@pytest.mark.parametrize(("image", "tile"), [((9, 13, 8), (4, 8, 8)), ((5, 11, 7), (4, 6))])
def test_tiles_cover_every_voxel(image: tuple[int, ...], tile: tuple[int, ...]) -> None:
    covered = np.zeros((1, *image), int)
    slicers = tile_slicers(image, tile, 0.5)
    for slicer in slicers:
        assert covered[slicer].shape == (1, *tile)
        covered[slicer] += 1
    assert covered.min() >= 1
    assert len(set(map(str, slicers))) == len(slicers)


def test_tiles_of_two_axes_visit_each_slice() -> None:
    slicers = tile_slicers((2, 4, 6), (4, 4), 0.5)
    whole, first, second = slice(None), slice(0, 4), slice(2, 6)
    assert slicers == [(whole, d, first, columns) for d in (0, 1) for columns in (first, second)]


def test_tiles_of_other_dimension() -> None:
    with pytest.raises(UsageError, match="as many axes as the image, or one less"):
        tile_slicers((4, 4, 4), (4,), 0.5)


def test_padding_is_zero_and_can_be_undone() -> None:
    image = torch.rand(2, 5, 8, 3) + 1
    padded, inner = pad_to_tile_size(image, (8, 8, 4))
    assert padded.shape == (2, 8, 8, 4)
    assert inner == (slice(None), slice(1, 6), slice(0, 8), slice(0, 3))
    torch.testing.assert_close(padded[inner], image)
    assert padded.sum().item() == pytest.approx(image.sum().item())


def test_padding_for_two_axes_leaves_the_slices() -> None:
    padded, inner = pad_to_tile_size(torch.ones(1, 3, 2, 9), (4, 4))
    assert padded.shape == (1, 3, 4, 9)
    assert inner == (slice(None), slice(None), slice(1, 3), slice(0, 9))
