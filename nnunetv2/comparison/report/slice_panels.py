"""Render one slice of an image as a picture, and segmentations as transparent overlays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nnunetv2.comparison.report.palette import CLASS_COLOURS

LONGEST_SIDE = 300  # pixels of a panel
_GROUND = 40  # grey level of the background if there is no image
_GREY_STEP = 4  # of 256 levels: smaller steps are invisible but cost file size
_FILL_OPACITY = 120  # of 255
_WHITE, _BLACK = len(CLASS_COLOURS) + 1, len(CLASS_COLOURS) + 2
_SHOWN_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class SliceWindow:
    """The displayed part of a case, and its size on screen."""

    index: int
    rows: slice
    columns: slice
    size: tuple[int, int]
    """width and height in pixels"""

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """(..., Z, Y, X) -> (..., Y', X')."""
        return volume[..., self.index, self.rows, self.columns]


def choose_window(reference: np.ndarray, predictions: Sequence[np.ndarray], spacing: Sequence[float]) -> SliceWindow:
    """Select the slice with the largest errors, cropped to the classes with a margin.

    Args:
        reference, predictions: (Z, Y, X) class positions, 0 for background.
        spacing: mm along each axis.
    """
    wrong = sum((prediction != reference).sum(axis=(1, 2)) for prediction in predictions)
    if not np.any(wrong):
        # Without errors, take the slice that shows most of the classes.
        wrong = np.count_nonzero(reference, axis=(1, 2))
    index = int(np.argmax(wrong))
    is_something = np.any([segmentation[index] > 0 for segmentation in (reference, *predictions)], axis=0)
    rows, columns = _around(is_something.any(axis=1)), _around(is_something.any(axis=0))
    height, width = (rows.stop - rows.start) * spacing[1], (columns.stop - columns.start) * spacing[2]
    scale = LONGEST_SIDE / max(height, width)
    return SliceWindow(index, rows, columns, (max(1, round(width * scale)), max(1, round(height * scale))))


def _around(is_something: np.ndarray) -> slice:
    """Range of the true entries with a margin of half its length, at least 16 pixels; everything if none is true."""
    places = np.flatnonzero(is_something)
    if not len(places):
        return slice(0, len(is_something))
    first, last = int(places[0]), int(places[-1]) + 1
    space = max(16, (last - first) // 2)
    return slice(max(0, first - space), min(len(is_something), last + space))


def ground_png(pixels: np.ndarray | None, window: SliceWindow) -> bytes:
    """Render the slice as PNG: grey, or colour for three channels (3, Y, X); a plain background without an image."""
    if pixels is None:
        return _png(Image.new("L", window.size, _GROUND))
    low, high = np.percentile(pixels, _SHOWN_PERCENTILES)
    levels = np.clip((pixels - low) / ((high - low) or 1) * 255, 0, 255).round().astype(np.uint8)
    if levels.ndim == 2:
        picture = Image.fromarray(levels).resize(window.size, Image.Resampling.BILINEAR)
        return _png(picture.point([grey // _GREY_STEP * _GREY_STEP for grey in range(256)]))
    picture = Image.fromarray(np.moveaxis(levels, 0, -1)).resize(window.size, Image.Resampling.BILINEAR)
    return _png(picture.quantize(256, method=Image.Quantize.MEDIANCUT))


def layer_png(filled: np.ndarray | None, outlined: np.ndarray | None, window: SliceWindow) -> bytes:
    """Render a transparent PNG with filled classes and, on top, class outlines in white.

    Args:
        filled, outlined: (Y, X) class positions, 0 for background.
    """
    width, height = window.size
    indices = np.zeros((height, width), dtype=np.uint8)
    if filled is not None:
        shown = _resized(filled, window)
        indices = np.where(shown > 0, (shown - 1) % len(CLASS_COLOURS) + 1, 0).astype(np.uint8)
    if outlined is not None:
        line = _borders(_resized(outlined, window))
        # A dark rim keeps the white line visible on bright images.
        indices[_grown(line)] = _BLACK
        indices[line] = _WHITE
    picture = Image.frombytes("P", (width, height), indices.tobytes())
    colours = [bytes.fromhex(colour[1:]) for colour in CLASS_COLOURS]
    picture.putpalette(b"".join([bytes(3), *colours, b"\xff\xff\xff", bytes(3)]))
    opacities = [0, *[_FILL_OPACITY] * len(colours), 255, 150]
    return _png(picture, transparency=bytes(opacities))


def _resized(labels: np.ndarray, window: SliceWindow) -> np.ndarray:
    """Nearest-neighbour resampling of (Y, X) labels to the size on screen."""
    width, height = window.size
    rows = (np.arange(height) * labels.shape[0]) // height
    columns = (np.arange(width) * labels.shape[1]) // width
    return labels[rows[:, None], columns]


def _borders(labels: np.ndarray) -> np.ndarray:
    """Pixels on both sides of every boundary between classes or with the background."""
    border = np.zeros(labels.shape, dtype=bool)
    border[1:] |= labels[1:] != labels[:-1]
    border[:-1] |= labels[1:] != labels[:-1]
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    return border


def _grown(line: np.ndarray) -> np.ndarray:
    grown = line.copy()
    grown[1:] |= line[:-1]
    grown[:-1] |= line[1:]
    grown[:, 1:] |= line[:, :-1]
    grown[:, :-1] |= line[:, 1:]
    return grown


def _png(picture: Image.Image, **settings: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True, **settings)
    return file.getvalue()
