"""Rotation ranges, initial patch sizes, mirror axes and target sizes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.errors import UsageError
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.data_augmentation.patch_geometry import augmentation_geometry, deep_supervision_scales
from tests.recorded import make_loader_batches

RECORDED = json.loads((Path(make_loader_batches.__file__).parent / "loader_batches.json").read_text())["geometry"]


@pytest.fixture(scope="module")
def computed():
    return make_loader_batches.geometries()


@pytest.mark.parametrize("patch_size", RECORDED)
def test_geometry_equals_upstream(computed, patch_size):
    assert computed[patch_size] == RECORDED[patch_size]


def test_without_rotation_only_the_scale_counts():
    assert get_patch_size((80, 100), 0, 0, 0, (0.5, 2)).tolist() == [160, 200]
    assert get_patch_size((80, 100), 0, 0, 0, (2, 0.5)).tolist() == [160, 200]


def test_a_right_angle_swaps_the_sides():
    assert get_patch_size((80, 100), math.pi / 2, 0, 0, (1, 1)).tolist() == [100, 100]


@pytest.mark.parametrize(
    ("angles", "extent"),
    [
        ((math.pi / 2, 0, 0), [10, 40, 40]),
        ((0, math.pi / 2, 0), [40, 20, 40]),
        ((0, 0, math.pi / 2), [20, 20, 40]),
        # The corner (10, 20, 40) is followed, not its mirror images: sine and cosine are 0.6 and 0.8.
        ((math.asin(0.6), 0, 0), [10, 40, 40]),  # 0.8 * 20 + 0.6 * 40, 0.8 * 40 - 0.6 * 20
        ((0, math.asin(0.6), 0), [16, 20, 40]),  # |0.8 * 10 - 0.6 * 40|, 0.8 * 40 + 0.6 * 10
        ((0, 0, math.asin(0.6)), [20, 20, 40]),  # 0.8 * 10 + 0.6 * 20, 0.8 * 20 - 0.6 * 10
    ],
)
def test_each_angle_turns_about_its_own_axis(angles, extent):
    assert get_patch_size((10, 20, 40), *angles, (1, 1)).tolist() == extent


def test_a_range_counts_by_its_larger_end():
    wide = get_patch_size((64, 64, 32), (-0.1, 0.5), (-0.5, 0.2), 0.5, (0.85, 1.25))
    assert wide.tolist() == get_patch_size((64, 64, 32), 0.5, 0.5, 0.5, (0.85, 1.25)).tolist()


@pytest.mark.parametrize(("patch_size", "is_2d"), [((16, 64, 60), True), ((64, 60, 16), False), ((60, 16, 64), False)])
def test_only_a_short_first_axis_keeps_the_rotation_within_the_slices(patch_size, is_2d):
    geometry = augmentation_geometry(patch_size)
    assert geometry.do_dummy_2d is is_2d
    assert geometry.rotation[1] == pytest.approx(math.pi if is_2d else math.pi / 6)
    assert (geometry.initial_patch_size[0] == patch_size[0]) == is_2d


def test_the_patch_size_given_is_not_changed():
    patch_size = np.array([16, 64, 64])
    augmentation_geometry(patch_size)
    assert patch_size.tolist() == [16, 64, 64]


def test_a_patch_of_four_axes_is_refused():
    with pytest.raises(UsageError, match=r"a patch has 2 or 3 axes, the plans say \[1, 2, 3, 4\]"):
        augmentation_geometry([1, 2, 3, 4])


def test_scales_are_the_inverse_of_the_strides_so_far():
    assert deep_supervision_scales([[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]) == [
        [1.0, 1.0, 1.0],
        [1.0, 0.5, 0.5],
        [0.5, 0.25, 0.25],
    ]
