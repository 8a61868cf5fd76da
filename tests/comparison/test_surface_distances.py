"""Surface distances against values that follow from the definition. The oracle is in test_case_scores.py."""

from __future__ import annotations

import numpy as np
import pytest

from tests.comparison.surface_scores import surface_scores

pytestmark = pytest.mark.slow  # importing monai takes seconds


def box(shape: tuple[int, ...], *slices: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*bounds) for bounds in slices)] = True
    return mask


def ball(shape: tuple[int, ...], radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    grid = np.indices(shape) - np.reshape([(length - 1) / 2 for length in shape], (-1, 1, 1, 1))
    return np.linalg.norm(grid * np.reshape(spacing, (-1, 1, 1, 1)), axis=0) <= radius


@pytest.mark.parametrize("spacing", [(2.5, 1.0, 1.0), (0.7, 3.0, 3.0)])
@pytest.mark.parametrize("num_voxels", [1, 4, 9])
def test_parallel_slabs_lie_apart_by_their_distance(spacing, num_voxels):
    lower = box((12, 6, 7), (1, 2), (0, 6), (0, 7))
    upper = np.roll(lower, num_voxels, axis=0)
    expected = num_voxels * spacing[0]
    assert surface_scores(lower, upper, spacing, expected) == pytest.approx(
        {"HD95": expected, "ASSD": expected, "NSD": 1.0}, rel=1e-6
    )
    assert surface_scores(lower, upper, spacing, 0.999 * expected)["NSD"] == 0


def test_lines_in_a_plane_lie_apart_by_their_distance():
    first, second = box((8, 10), (0, 8), (2, 3)), box((8, 10), (0, 8), (7, 8))
    assert surface_scores(first, second, (9.0, 0.5), 2.5) == {"HD95": 2.5, "ASSD": 2.5, "NSD": 1.0}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_concentric_balls_lie_apart_by_the_difference_of_their_radii(spacing):
    shape = tuple(round(36 / length) for length in spacing)
    inner, outer = ball(shape, 9.0, spacing), ball(shape, 14.0, spacing)
    found = surface_scores(inner, outer, spacing, 1.0)
    half_a_diagonal = np.linalg.norm(spacing) / 2
    assert abs(found["HD95"] - 5) < half_a_diagonal
    assert abs(found["ASSD"] - 5) < half_a_diagonal
    assert found["NSD"] == 0


def test_cube_around_a_voxel_by_hand():
    cube, centre = box((5, 5, 5), (1, 4), (1, 4), (1, 4)), box((5, 5, 5), (2, 3), (2, 3), (2, 3))
    # Of the cube all 26 voxels but the middle one are on its surface: 6 at distance 1, 12 at sqrt 2, 8 at sqrt 3.
    assert surface_scores(centre, cube, (1, 1, 1), 1.0) == pytest.approx(
        {"HD95": 3**0.5, "ASSD": (1 + 6 + 12 * 2**0.5 + 8 * 3**0.5) / 27, "NSD": 7 / 27}, rel=1e-6
    )
    # With slices 2 mm apart: 4 at 1, 4 at sqrt 2, 2 at 2, 8 at sqrt 5, 8 at sqrt 6.
    assert surface_scores(centre, cube, (2, 1, 1), 2.0) == pytest.approx(
        {"HD95": 6**0.5, "ASSD": (1 + 4 + 4 * 2**0.5 + 4 + 8 * 5**0.5 + 8 * 6**0.5) / 27, "NSD": 11 / 27}, rel=1e-6
    )


def test_the_end_of_the_image_is_a_surface():
    whole, inside = box((5, 5), (0, 5), (0, 5)), box((5, 5), (1, 4), (1, 4))
    # 16 voxels along the border, whose corners lie at sqrt 2 and the others at 1; 8 around the middle voxel at 1.
    assert surface_scores(inside, whole, (1, 1), 1.0) == pytest.approx(
        {"HD95": 2**0.5, "ASSD": (8 + 12 + 4 * 2**0.5) / 24, "NSD": 20 / 24}, rel=1e-6
    )


def test_percentile_is_interpolated_and_the_larger_of_both_directions():
    point, line = box((1, 30), (0, 1), (0, 1)), box((1, 30), (0, 1), (0, 21))
    # The line has distances 0 to 20 to the point: 95 % of the way along them is 19. The point has distance 0.
    assert surface_scores(point, line, (1, 1), 1.0)["HD95"] == pytest.approx(19.0)
    shorter = box((1, 30), (0, 1), (0, 11))
    assert surface_scores(point, shorter, (1, 2), 1.0)["HD95"] == pytest.approx(19.0)
    assert surface_scores(line, point, (1, 1), 1.0)["HD95"] == pytest.approx(19.0)


def test_both_orders_of_the_masks_give_the_same():
    random = np.random.default_rng(0)
    for _ in range(10):
        first, second = random.random((2, 6, 8, 7)) < 0.1
        forth = surface_scores(first, second, (2.0, 0.7, 1.1), 0.7)
        assert surface_scores(second, first, (2.0, 0.7, 1.1), 0.7) == pytest.approx(forth, rel=1e-12)


def test_a_distance_that_equals_the_tolerance_is_within_it_in_spite_of_rounding():
    # In double precision 3 * 0.7 - 2 * 0.7 is a little more than 0.7.
    first, second = box((6, 4), (3, 4), (0, 4)), box((6, 4), (2, 3), (0, 4))
    assert surface_scores(first, second, (0.7, 1), 0.7)["NSD"] == 1


def test_equal_masks_have_no_distance():
    mask = box((5, 6, 7), (0, 4), (2, 6), (1, 3))
    assert surface_scores(mask, mask.copy(), (3, 1, 1), 1e-3) == {"HD95": 0, "ASSD": 0, "NSD": 1}
