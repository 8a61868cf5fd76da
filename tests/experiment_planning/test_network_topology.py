from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
    get_shape_must_be_divisible_by,
    initial_patch_size,
    largest_fitting,
    pad_shape,
    shrunk,
    topology_of,
)


def test_isotropic_patch_is_halved_along_all_axes():
    num_pool, strides, kernels, patch, divisors = get_pool_and_conv_props((1, 1, 1), (64, 64, 64), 4, 999)
    assert num_pool == [4, 4, 4] and patch == (64, 64, 64)
    assert strides == ((1, 1, 1),) + ((2, 2, 2),) * 4
    assert kernels == ((3, 3, 3),) * 5
    np.testing.assert_array_equal(divisors, [16, 16, 16])


def test_coarse_axis_waits_until_the_others_have_caught_up():
    topology = get_pool_and_conv_props((3.0, 0.8, 0.8), (80, 160, 160), 4, 999)
    assert topology.strides == ((1, 1, 1), (1, 2, 2)) + ((2, 2, 2),) * 4
    assert topology.kernel_sizes == ((1, 3, 3),) + ((3, 3, 3),) * 5


def test_single_long_axis_must_be_longer_to_be_halved():
    assert get_pool_and_conv_props((1, 1), (11, 7), 4, 999).num_pool_per_axis == [0, 0]
    assert get_pool_and_conv_props((1, 1), (12, 7), 4, 999).num_pool_per_axis == [1, 0]


def test_an_axis_that_is_too_short_to_be_halved_does_not_hold_up_coarser_ones():
    topology = get_pool_and_conv_props((1, 3, 3), (7, 64, 64), 4, 999)
    assert topology.num_pool_per_axis == [0, 4, 4]
    assert topology.patch_size == (7, 64, 64)


def test_number_of_halvings_can_be_limited():
    assert get_pool_and_conv_props((1, 1), (512, 512), 4, 2).num_pool_per_axis == [2, 2]


@pytest.mark.parametrize("seed", range(20))
def test_patch_is_divisible_and_feature_maps_stay_large_enough(seed):
    random_state = np.random.RandomState(seed)
    spacing, size = random_state.uniform(0.3, 8, 3), random_state.randint(8, 400, 3)
    topology = get_pool_and_conv_props(spacing, size, 4, 999)
    total_stride = np.prod(topology.strides, axis=0)
    np.testing.assert_array_equal(total_stride, topology.must_be_divisible_by)
    assert not np.any(np.array(topology.patch_size) % total_stride)
    assert np.all(np.array(topology.patch_size) >= size)
    assert np.all((np.array(topology.patch_size) - size) < total_stride)
    bottom = np.array(topology.patch_size) // total_stride
    assert np.all(bottom >= 4)
    assert len(topology.strides) == len(topology.kernel_sizes)
    assert np.all(np.diff(np.array(topology.kernel_sizes), axis=0) >= 0)


def test_shapes_are_padded_to_multiples():
    np.testing.assert_array_equal(pad_shape((66, 158.5, 160), (16, 32, 32)), (80, 160, 160))
    np.testing.assert_array_equal(pad_shape((7, 8), 4), (8, 8))
    np.testing.assert_array_equal(get_shape_must_be_divisible_by([0, 1, 5]), (1, 2, 32))
    with pytest.raises(ValueError, match="broadcast"):
        pad_shape((7, 8), (2, 2, 2))


def test_initial_patch_is_isotropic_in_mm_and_inside_the_median_image():
    patch = initial_patch_size((4.0, 1.0, 1.0), (1000, 1000, 1000))
    np.testing.assert_allclose(np.array(patch) * (4, 1, 1), 256 * 4 ** (1 / 3), rtol=0.01)
    assert initial_patch_size((1.0, 1.0), (300.5, 4000)) == [300.5, 2048]


def test_shrinking_does_not_skip_valid_sizes():
    smaller = shrunk(topology_of((1, 1), (256, 256), 4), (1, 1), (256, 512), 4)
    assert smaller.patch_size == (224, 256)  # 256 is halved six times, but 224 only five times


def test_of_axes_that_cover_as_much_of_the_image_the_last_one_shrinks():
    assert shrunk(topology_of((1, 1), (256, 256), 4), (1, 1), (512, 512), 4).patch_size == (256, 224)
    assert shrunk(topology_of((1, 1), (256, 192), 4), (1, 1), (512, 384), 4).patch_size == (256, 160)


def test_search_returns_the_first_candidate_that_fits():
    limit = 128 * 128
    found = largest_fitting((1, 1), (300, 300), 4, lambda topology: np.prod(topology.patch_size) <= limit)
    assert np.prod(found.patch_size) <= limit
    larger = largest_fitting((1, 1), (300, 300), 4, lambda topology: True)
    assert larger.patch_size == (320, 320)
