"""Fill polygons: a pixel belongs to one if its centre is inside, by the even-odd rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_FARTHEST = 1e9  # pixels; beyond, differences of coordinates could overflow


def is_coordinate(value: Any) -> bool:
    """Whether a value of a JSON file can be the x or y of a corner."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and -_FARTHEST <= value <= _FARTHEST


def fill_polygon(points: Sequence[Sequence[float]], shape: tuple[int, int]) -> np.ndarray:
    """Marks the pixels inside a closed polygon.

    The pixel in row y and column x has its centre at (x + 0.5, y + 0.5). A centre that lies on an edge belongs to the
    polygon on its right or below, so that polygons that share an edge share no pixel.

    Args:
        points: (x, y) corners, in pixels from the upper left corner of the image; may lie outside of it.
        shape: height and width of the image.

    Returns:
        bool (Y, X).
    """
    height, width = shape
    # Each edge flips all pixels of its rows that lie to its right; what was flipped an odd number of times is inside.
    flips = np.zeros((height, width + 1), np.uint8)
    corners = np.asarray(points, float)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        if y0 > y1:
            (x0, y0), (x1, y1) = (x1, y1), (x0, y0)
        first, end = max(math.ceil(y0 - 0.5), 0), min(math.ceil(y1 - 0.5), height)
        if first >= end:
            continue
        rows = np.arange(first, end)
        crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)
        flips[rows, columns] ^= 1
    return np.bitwise_xor.accumulate(flips[:, :width], axis=1).astype(bool)


def fill_circle(centre: Sequence[float], radius: float, shape: tuple[int, int]) -> np.ndarray:
    """Marks the pixels whose centres are at most `radius` from (x, y); bool (Y, X)."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (x + 0.5 - centre[0]) ** 2 + (y + 0.5 - centre[1]) ** 2 <= radius**2


def polygon_area(points: Sequence[Sequence[float]]) -> float:
    """Area by the shoelace formula, in square pixels."""
    corners = np.asarray(points, float)
    following = np.roll(corners, -1, axis=0)
    return abs(float((corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]).sum())) / 2
