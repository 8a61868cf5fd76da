from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.experiment_planning.experiment_planners.target_spacing import (
    axis_order,
    fullres_target_spacing,
    slightly_coarser,
)

MANY_SLICES, FEW_SLICES = [[100, 200, 200]], [[20, 200, 200]]


def test_target_is_the_median_for_similar_axes():
    target = fullres_target_spacing([[1, 1, 2], [2, 1, 2], [9, 1, 2]], MANY_SLICES * 3, 3)
    np.testing.assert_array_equal(target, [2, 1, 2])


def test_coarse_axis_with_few_slices_takes_the_tenth_percentile():
    spacings = [[z, 1.0, 1.0] for z in (5.0, 6.0, 10.0, 10.0, 10.0)]
    np.testing.assert_allclose(fullres_target_spacing(spacings, FEW_SLICES * 5, 3), [5.4, 1, 1])
    np.testing.assert_array_equal(fullres_target_spacing(spacings, MANY_SLICES * 5, 3), [10, 1, 1])


def test_any_axis_can_be_the_coarse_one_and_is_compared_with_the_nearer_of_the_others():
    spacings = [[0.8, 0.5, z] for z in (5.0, 6.0, 10.0, 10.0, 10.0)]
    np.testing.assert_allclose(fullres_target_spacing(spacings, [[100, 200, 20]] * 5, 3), [0.8, 0.5, 5.4])
    # 20 slices are not fewer than a third of 50, nor 5 mm more than three times 2 mm
    np.testing.assert_array_equal(fullres_target_spacing(spacings, [[50, 200, 20]] * 5, 3), [0.8, 0.5, 10])
    spacings = [[2.0, z, 1.0] for z in (4.0, 5.0, 5.0, 5.0, 6.0)]
    np.testing.assert_array_equal(fullres_target_spacing(spacings, [[100, 20, 200]] * 5, 3), [2, 5, 1])


def test_coarse_axis_never_gets_finer_than_the_others():
    spacings = [[0.5, 1.0, 1.0]] * 2 + [[10.0, 1.0, 1.0]] * 3
    np.testing.assert_allclose(fullres_target_spacing(spacings, FEW_SLICES * 5, 3), [1 + 1e-5, 1, 1], rtol=1e-12)


@pytest.mark.parametrize("spacing", [(1, 1, 5), (1, 5, 1), (5, 1, 1), (1, 1, 1)])
def test_coarsest_axis_comes_first_and_the_order_can_be_undone(spacing):
    forward, backward = axis_order(spacing)
    assert spacing[forward[0]] == max(spacing)
    assert [forward[axis] for axis in backward] == [0, 1, 2]


def test_finest_axes_are_coarsened_first():
    np.testing.assert_allclose(slightly_coarser(np.array([3.0, 1.0, 1.6])), [3.0, 1.03, 1.6])
    np.testing.assert_allclose(slightly_coarser(np.array([2.0, 1.0, 1.6])), [2.06, 1.03, 1.648])
