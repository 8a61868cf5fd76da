"""Where the labels of a picture come from: a mask, a mask per class, channels of one picture, or drawn shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from nnunetv2.dataset_conversion.import_images.label_table import LabelTable, labels_of
from nnunetv2.dataset_conversion.import_images.polygons import fill_circle, fill_polygon
from nnunetv2.errors import DataError
from nnunetv2.imageio.pictures import Picture, read_picture

_ON = 128  # of 255


@dataclass(frozen=True)
class Painted:
    """Labels of one picture."""

    labels: np.ndarray
    """int32 (Y, X)"""
    num_snapped: int = 0
    """pixels whose colour or value was not exactly that of their class"""
    num_overlapping: int = 0
    """pixels that several classes claim"""
    mask: np.ndarray | None = None
    """the mask as it is shown, if there is one"""
    was_turned: bool = False
    """the mask has an EXIF orientation that was applied"""


class LabelSource(Protocol):
    """Picklable, for worker processes."""

    files: tuple[Path, ...]
    """what it reads"""

    def paint(self, shape: tuple[int, int], image: Path) -> Painted:
        """Paints labels for a picture of this height and width. Raises `DataError` if they do not fit."""


def require_shape(mask: Picture, path: Path, shape: tuple[int, int], image: Path) -> None:
    """Raises `DataError` if a mask is not as large as its image."""
    own = mask.pixels.shape[:2]
    if own == shape:
        return
    turned = "; one of them seems to be turned by 90 degrees" if own == shape[::-1] else ""
    raise DataError(
        f"{image} has {shape[0]} x {shape[1]} pixels (height x width) and its mask {path} {own[0]} x {own[1]}{turned}; "
        f"they must be equal, because labels are never resized: take the mask that was drawn on this image"
    )


@dataclass(frozen=True)
class MaskSource:
    """One mask whose colours or values are classes."""

    path: Path
    table: LabelTable

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def paint(self, shape: tuple[int, int], image: Path) -> Painted:
        mask = read_picture(self.path)
        require_shape(mask, self.path, shape, image)
        labels, num_snapped = labels_of(mask, self.table, self.path)
        return Painted(labels, num_snapped, mask=mask.as_shown(), was_turned=mask.was_turned)


@dataclass(frozen=True)
class ClassMasksSource:
    """One binary mask per class; where they overlap, the later class or a class of its own."""

    paths: Mapping[int, Path]
    """by label, in the order in which they are painted"""
    tables: Mapping[int, LabelTable]
    overlap: int | None
    """label of pixels that several classes claim; None: the later class"""

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self.paths.values())

    def paint(self, shape: tuple[int, int], image: Path) -> Painted:
        labels, claims = np.zeros(shape, np.int32), np.zeros(shape, np.uint16)
        num_snapped = 0
        for label, path in self.paths.items():
            mask = read_picture(path)
            require_shape(mask, path, shape, image)
            inside, snapped = labels_of(mask, self.tables[label], path)
            labels[inside == 1] = label
            claims += (inside == 1).astype(np.uint16)
            num_snapped += snapped
        if self.overlap is not None:
            labels[claims > 1] = self.overlap
        return Painted(labels, num_snapped, int((claims > 1).sum()))


@dataclass(frozen=True)
class ChannelSource:
    """One picture with a class per colour channel."""

    path: Path
    channels: Mapping[str, int]
    """label of each channel R, G, B, or of several together, as in R+G"""
    overlap: int | None
    """label of pixels with several channels that `channels` does not name together"""

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def paint(self, shape: tuple[int, int], image: Path) -> Painted:
        mask = read_picture(self.path)
        require_shape(mask, self.path, shape, image)
        combinations = channel_combinations(mask, self.path)
        of_combination = np.array([self.label_of(number) for number in range(8)], np.int32)
        shown = mask.as_shown()
        num_snapped = int(((shown > 0) & (shown < 255)).any(-1).sum()) if mask.is_lossy else 0  # noqa: PLR2004 - white
        is_overlap = np.array([self.is_overlap(number) for number in range(8)])
        num_overlapping = int(is_overlap[combinations].sum())
        return Painted(of_combination[combinations], num_snapped, num_overlapping, shown, mask.was_turned)

    def label_of(self, combination: int) -> int:
        """Label of the channels that are on, as bits R 4, G 2, B 1.

        Channels that are not named do not count. B counts where neither R nor G is on, or is named with them: in
        RRWNet's masks it is on in every vessel.
        """
        on = self._named(combination)
        if not on:
            return 0
        return self.channels.get(on, 0 if self.overlap is None else self.overlap)

    def is_overlap(self, combination: int) -> bool:
        on = self._named(combination)
        return bool(on) and on not in self.channels

    def _named(self, combination: int) -> str:
        alone = {part for name in self.channels for part in name.split("+")}
        on = [name for name, bit in (("R", 4), ("G", 2), ("B", 1)) if combination & bit and name in alone]
        if "B" in on and len(on) > 1 and "+".join(on) not in self.channels:
            on.remove("B")
        return "+".join(on)


def channel_combinations(mask: Picture, path: Path) -> np.ndarray:
    """Which channels are on (at least half of white) at each pixel, as bits R 4, G 2, B 1; uint8 (Y, X).

    Raises:
        DataError: the mask has no colours.
    """
    shown = mask.as_shown()
    if shown.ndim == 2:  # noqa: PLR2004 - grey
        raise DataError(f"{path} is grey; --layout channels is for masks with a class per colour channel")
    on = shown >= (_ON if shown.dtype == np.uint8 else 257 * _ON)
    return (on[..., 0] << 2 | on[..., 1] << 1 | on[..., 2]).astype(np.uint8)


@dataclass(frozen=True)
class Shape:
    """A drawn object of one class."""

    label: int
    polygons: tuple[tuple[tuple[float, float], ...], ...] = ()
    """(x, y) corners; all polygons belong to the object"""
    circle: tuple[float, float, float] | None = None
    """x, y and radius"""
    pixels: np.ndarray | None = None
    """bool (height, width) from row `top` and column `left` on"""
    top: int = 0
    left: int = 0

    def scaled(self, shape: tuple[int, int]) -> Shape:
        """The same polygons in pixels, if they are in shares of the width and height."""
        height, width = shape
        return replace(self, polygons=tuple(tuple((x * width, y * height) for x, y in each) for each in self.polygons))

    def fill(self, shape: tuple[int, int]) -> np.ndarray:
        """Marks the pixels of the object in an image of this height and width."""
        inside = np.zeros(shape, bool)
        for polygon in self.polygons:
            inside |= fill_polygon(polygon, shape)
        if self.circle is not None:
            inside |= fill_circle(self.circle[:2], self.circle[2], shape)
        if self.pixels is not None:
            target = inside[max(self.top, 0) :, max(self.left, 0) :]
            part = self.pixels[max(-self.top, 0) :, max(-self.left, 0) :][: target.shape[0], : target.shape[1]]
            target[: part.shape[0], : part.shape[1]] |= part
        return inside


@dataclass(frozen=True)
class ShapeSource:
    """Drawn objects, painted one over the other."""

    path: Path
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None
    """height and width that the file states"""
    are_relative: bool = False
    """the corners are shares of width and height instead of pixels"""

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    def paint(self, shape: tuple[int, int], image: Path) -> Painted:
        if self.size is not None and self.size != shape:
            turned = "; it seems to be turned by 90 degrees" if self.size == shape[::-1] else ""
            raise DataError(
                f"{image} has {shape[0]} x {shape[1]} pixels (height x width), and {self.path} describes it with "
                f"{self.size[0]} x {self.size[1]}{turned}; take the image on which the shapes were drawn"
            )
        labels = np.zeros(shape, np.int32)
        overlapping = np.zeros(shape, bool)
        for each in self.shapes:
            inside = (each.scaled(shape) if self.are_relative else each).fill(shape)
            overlapping |= inside & (labels != 0) & (labels != each.label)
            labels[inside] = each.label
        return Painted(labels, num_overlapping=int(overlapping.sum()))
