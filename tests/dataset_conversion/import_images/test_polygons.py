"""Polygons, circles and run lengths."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nnunetv2.dataset_conversion.import_images.polygons import fill_circle, fill_polygon, polygon_area
from nnunetv2.dataset_conversion.import_images.run_lengths import decode_run_lengths
from nnunetv2.errors import DataError, UsageError


def even_odd(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Casts a ray to the left of every centre and counts the edges that it crosses."""
    inside = np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            x, y = column + 0.5, row + 0.5
            for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
                if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                    inside[row, column] ^= True
    return inside


def test_a_pixel_belongs_if_its_centre_is_inside() -> None:
    filled = fill_polygon([(1, 1), (4, 1), (4, 3), (1, 3)], (5, 5))
    assert np.argwhere(filled).tolist() == [[y, x] for y in (1, 2) for x in (1, 2, 3)]
    assert not fill_polygon([(0.6, 0.6), (1.4, 0.6), (1.4, 1.4), (0.6, 1.4)], (3, 3)).any()


@pytest.mark.parametrize("seed", range(8))
def test_polygons_follow_the_even_odd_rule(seed: int) -> None:
    """Random stars that cross themselves and leave the image, partly with corners on pixel centres."""
    points = np.random.default_rng(seed).uniform(-4, 16, (7, 2))
    points = np.round(points * 2) / 2 if seed % 2 else points
    np.testing.assert_array_equal(fill_polygon(points, (11, 13)), even_odd(points, (11, 13)))


def test_neighbours_share_no_pixel_and_leave_no_gap() -> None:
    left, right = [(0, 0), (4.5, 0), (2.5, 6), (0, 6)], [(4.5, 0), (9, 0), (9, 6), (2.5, 6)]
    total = fill_polygon(left, (6, 9)).astype(int) + fill_polygon(right, (6, 9))
    assert (total == 1).all()


def test_circle_and_area() -> None:
    assert np.argwhere(fill_circle((1.5, 2.5), 1, (5, 4))).tolist() == [[1, 1], [2, 0], [2, 1], [2, 2], [3, 1]]
    assert polygon_area([(1, 1), (4, 1), (4, 3), (1, 3)]) == 6


def test_run_lengths_go_down_the_columns() -> None:
    decoded = decode_run_lengths({"size": [2, 3], "counts": [1, 2, 3]}, "annotation 7")
    assert decoded.tolist() == [[False, True, False], [True, False, False]]
    with pytest.raises(DataError, match="annotation 7: the run lengths cover 5 pixels; 2 x 3 are needed"):
        decode_run_lengths({"size": [2, 3], "counts": [1, 4]}, "annotation 7")


def test_compressed_run_lengths_are_decoded_as_pycocotools_encodes_them() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    given = np.asfortranarray([[0, 1, 0], [1, 0, 0]], np.uint8)
    segmentation = {"size": [2, 3], "counts": mask.encode(given)["counts"].decode()}
    np.testing.assert_array_equal(decode_run_lengths(segmentation, "annotation 7"), given == 1)


def test_compressed_run_lengths_need_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UsageError, match=r"install it: pip install 'nnunetv2\[coco\]'"):
        decode_run_lengths({"size": [2, 3], "counts": "121"}, "annotation 7")
