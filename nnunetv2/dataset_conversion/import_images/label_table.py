"""Turn the colours or values of a mask into labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, Classes, Request, classes_of
from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.pictures import Picture

LOSSY_SNAP = 48
"""Distance up to which colours of JPEG masks belong to a class, unless `--snap` says otherwise."""

_UNKNOWN = -1


@dataclass(frozen=True)
class LabelTable:
    """Which colours or values belong to which label; exactly one of the three fields is used."""

    classes: Classes
    colours: tuple[tuple[int, int], ...] = ()
    """(0xrrggbb, label)"""
    ranges: tuple[tuple[int, int, int], ...] = ()
    """(lowest value, highest value, label)"""
    threshold: int | None = None
    """for binary masks: label 1 from this grey value on, of 255"""
    snap: float | None = None
    """largest distance to a colour or value; None: 0, for lossy files `LOSSY_SNAP`"""


def table_of(requests: Sequence[Request], snap: float | None, classes: Classes | None = None) -> LabelTable:
    """Builds the table that `--labels` describes. What is left, black or 0, is background.

    Raises:
        UsageError: a class has neither colour nor value, or two classes share one.
    """
    classes = classes or classes_of(requests)
    labels = classes.labels
    colours: dict[int, str] = {}
    ranges: list[tuple[int, int, str]] = []
    for request in requests:
        if not (request.colours or request.ranges):
            raise UsageError(
                f"--labels says nothing about {request.name}; give its colour or value, like {request.name}=#ff0000 or "
                f"{request.name}=255"
            )
        for colour in request.colours:
            _refuse_shared(f"#{colour:06x}", colours.setdefault(colour, request.name), request.name)
        for low, high in request.ranges:
            for other_low, other_high, name in ranges:
                if low <= other_high and other_low <= high:
                    _refuse_shared(str(max(low, other_low)), name, request.name)
            ranges.append((low, high, request.name))
    if BACKGROUND not in [request.name for request in requests]:
        if colours:
            colours.setdefault(0, BACKGROUND)
        elif all(low > 0 for low, _, _ in ranges):
            ranges.append((0, 0, BACKGROUND))
    return LabelTable(
        classes,
        tuple((colour, labels[name]) for colour, name in colours.items()),
        tuple((low, high, labels[name]) for low, high, name in ranges),
        snap=snap,
    )


def _refuse_shared(shown: str, first: str, second: str) -> None:
    if first != second:
        raise UsageError(f"--labels gives {shown} to both {first} and {second}; each belongs to one class")


def labels_of(mask: Picture, table: LabelTable, path: str | PathLike) -> tuple[np.ndarray, int]:
    """Finds the label of each pixel.

    Returns:
        int32 labels (Y, X), and the number of pixels that do not have the exact colour or value.

    Raises:
        DataError: a colour or value is not in the table; names the file, the pixels and the nearest class.
    """
    if table.threshold is not None:
        shown = grey_of(mask)
        num_snapped = int(((shown > 0) & (shown < 255)).sum()) if mask.is_lossy else 0  # noqa: PLR2004 - white
        return (shown >= table.threshold).astype(np.int32), num_snapped
    snap = table.snap if table.snap is not None else LOSSY_SNAP if mask.is_lossy else 0
    if table.colours:
        return _from_colours(codes_of(mask, path), table, snap, path)
    return _from_values(numbers_of(mask, path), table, snap, path)


def grey_of(mask: Picture) -> np.ndarray:
    """Mean of the colours as they are shown, 0 to 255, (Y, X)."""
    shown = mask.as_shown()
    grey = shown
    if shown.ndim == 3:  # noqa: PLR2004 - colours
        wide = np.uint16 if shown.dtype == np.uint8 else np.uint32
        red, green, blue = (shown[..., channel].astype(wide) for channel in range(3))
        grey = ((red + green + blue + 1) // 3).astype(shown.dtype)
    if shown.dtype == np.uint16:
        grey = (grey.astype(np.uint32) * 255 + 65535 // 2) // 65535
    return grey.astype(np.uint8)


def codes_of(mask: Picture, path: str | PathLike) -> np.ndarray:
    """Colours 0xrrggbb as they are shown, (Y, X).

    Raises:
        DataError: the file has 16 bits, which have no such code.
    """
    shown = mask.as_shown()
    if shown.dtype == np.uint16:
        raise DataError(f"{path} has 16 bits per channel, which no #rrggbb describes; give its values with --labels")
    if shown.ndim == 2:  # noqa: PLR2004 - grey
        return shown * np.uint32(0x010101)
    parts = shown.astype(np.uint32)
    return parts[..., 0] << 16 | parts[..., 1] << 8 | parts[..., 2]


def numbers_of(mask: Picture, path: str | PathLike) -> np.ndarray:
    """Stored grey values or palette indices, (Y, X).

    Raises:
        DataError: the file has colours.
    """
    if mask.pixels.ndim == 2:  # noqa: PLR2004 - grey or palette
        return mask.pixels
    coloured = (mask.pixels != mask.pixels[..., :1]).any(-1)
    if coloured.any():
        y, x = np.argwhere(coloured)[0]
        shown = "#" + "".join(f"{int(value):02x}" for value in mask.pixels[y, x])
        raise DataError(
            f"{path} is a colour mask (such as {shown} at row {y}, column {x}), and --labels gives values; give "
            f"colours, like NAME={shown}"
        )
    return mask.pixels[..., 0]


def _from_colours(codes: np.ndarray, table: LabelTable, snap: float, path: str | PathLike) -> tuple[np.ndarray, int]:
    labels = np.full(codes.shape, _UNKNOWN, np.int32)
    for colour, label in table.colours:
        labels[codes == colour] = label
    left = labels == _UNKNOWN
    if not left.any():
        return labels, 0
    found, places = np.unique(codes[left], return_inverse=True)
    known = np.array([colour for colour, _ in table.colours])
    distances = np.stack([_distances(found, colour) for colour in known])
    nearest = distances.argmin(0)
    near = distances.min(0) <= snap
    if not near.all():
        counts = np.bincount(places.ravel(), minlength=len(found))
        worst = int(np.where(near, -1, counts).argmax())
        _refuse_unknown(
            path,
            f"#{int(found[worst]):06x}",
            np.argwhere(codes == found[worst]),
            float(distances[nearest[worst], worst]),
            f"{_name(table, table.colours[nearest[worst]][1])} (#{int(known[nearest[worst]]):06x})",
            int((~near).sum()),
        )
    of_known = np.array([label for _, label in table.colours], np.int32)
    labels[left] = of_known[nearest][places.ravel()]
    return labels, int(left.sum())


def _distances(codes: np.ndarray, colour: int) -> np.ndarray:
    parts = [((codes >> shift) & 255).astype(np.int64) - ((int(colour) >> shift) & 255) for shift in (16, 8, 0)]
    return np.sqrt(sum(part * part for part in parts))


def _from_values(numbers: np.ndarray, table: LabelTable, snap: float, path: str | PathLike) -> tuple[np.ndarray, int]:
    highest = max(int(numbers.max(initial=0)), *(high for _, high, _ in table.ranges))
    values = np.arange(highest + 1)
    distances = np.stack([_outside(values, low, high) for low, high, _ in table.ranges])
    nearest, distance = distances.argmin(0), distances.min(0)
    of_range = np.array([label for _, _, label in table.ranges], np.int32)
    counts = np.bincount(numbers.ravel(), minlength=highest + 1)
    unknown = (distance > snap) & (counts > 0)
    if unknown.any():
        worst = int(np.where(unknown, counts, -1).argmax())
        low, high, label = table.ranges[nearest[worst]]
        _refuse_unknown(
            path,
            f"value {worst}",
            np.argwhere(numbers == worst),
            float(distance[worst]),
            f"{_name(table, label)} ({low if low == high else f'{low}-{high}'})",
            int(unknown.sum()),
        )
    return of_range[nearest][numbers], int(counts[distance > 0].sum())


def _outside(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Distance of each value to a range; 0 inside."""
    return np.maximum(np.maximum(low - values, values - high), 0)


def _name(table: LabelTable, label: int) -> str:
    return next(name for name, number in table.classes.labels.items() if number == label)


def _refuse_unknown(
    path: str | PathLike, shown: str, places: np.ndarray, distance: float, nearest: str, num_unknown: int
) -> None:
    y, x = places[0]
    more = f"; {num_unknown - 1} other colours or values are unknown too" if num_unknown > 1 else ""
    snap = f", or take it for {nearest} with --snap {math.ceil(distance)}" if distance <= LOSSY_SNAP else ""
    pixels = "1 pixel" if len(places) == 1 else f"{len(places)} pixels"
    raise DataError(
        f"{path}: {shown} at {pixels} (the first at row {y}, column {x}) is none of the labels; the nearest is "
        f"{nearest}, {distance:.2f} away{more}; add it to --labels{snap}"
    )
