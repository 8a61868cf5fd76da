"""The field of view of fundus photographs: read from masks, or found as the part that is not black."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunetv2.dataset_conversion.import_images.label_sources import require_shape
from nnunetv2.dataset_conversion.import_images.label_table import grey_of
from nnunetv2.errors import DataError
from nnunetv2.imageio.pictures import read_picture

AUTO = "auto"

_DARK = 15  # of 255: what the black frame reaches through noise and compression


def read_field_of_view(path: Path, image: Path, shape: tuple[int, int]) -> np.ndarray:
    """Reads a mask whose brighter half of values is inside.

    Returns:
        bool (Y, X).

    Raises:
        DataError: it has another size than the picture, or nothing is inside.
    """
    mask = read_picture(path)
    require_shape(mask, path, shape, image)
    grey = grey_of(mask)
    if not grey.any():
        raise DataError(f"The field of view {path} is black everywhere, so that nothing of {image.name} would count")
    return grey > grey.max() / 2


def find_field_of_view(image: np.ndarray, path: Path) -> np.ndarray:
    """Finds the largest connected part whose brightest channel exceeds 15 of 255, with its holes filled.

    Args:
        image: (Y, X) or (Y, X, 3), uint8 or uint16.
        path: for messages.

    Returns:
        bool (Y, X).

    Raises:
        DataError: the picture is dark everywhere.
    """
    from scipy import ndimage

    brightest = image if image.ndim == 2 else image.max(-1)  # noqa: PLR2004 - grey
    bright = brightest > (_DARK if image.dtype == np.uint8 else 257 * _DARK)
    pieces, number = ndimage.label(bright)
    if not number:
        raise DataError(f"{path} is dark everywhere, so it has no field of view; leave it out, or give --fov a folder")
    sizes = np.bincount(pieces.ravel())[1:]
    return ndimage.binary_fill_holes(pieces == 1 + int(sizes.argmax()))


def bounding_box(inside: np.ndarray) -> tuple[int, int, int, int]:
    """First row, first column, height and width of what is inside."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
