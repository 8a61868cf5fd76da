"""Look at every mask: which colours or values it has, and whether all masks together are binary."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, IGNORE, Classes, Request, classes_of
from nnunetv2.dataset_conversion.import_images.label_table import LabelTable, codes_of, grey_of, numbers_of
from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.pictures import Picture, read_picture
from nnunetv2.utilities.message_parts import counted

logger = logging.getLogger(__name__)

_WHITE = 255
_GREY_STEP = 0x010101
_NEAR = 32  # of 0 or 255: what JPEG compression makes of black and white
_BINARY_SHARE = 0.99
_BINARY_VALUES = 2
_THRESHOLD = 128
_SHOWN = 20
_FOREGROUND = "foreground"


@dataclass(frozen=True)
class MaskSurvey:
    """What one mask, or all of them, consist of."""

    pixels: Counter[int]
    """pixels of each colour 0xrrggbb, or of each value where `are_values`"""
    files: Counter[int]
    """masks with each of them"""
    are_values: bool
    """no file has colours: stored grey numbers"""
    is_lossy: bool
    is_deep: bool
    """some file has 16 bits"""
    num_near: int
    """pixels that are nearly black or white"""
    num_files: int = 1

    @property
    def num_pixels(self) -> int:
        return self.pixels.total()

    @property
    def is_binary(self) -> bool:
        """At most two colours, one of them black; of lossy files, 99 % of the pixels nearly black or white."""
        if len(self.pixels) <= _BINARY_VALUES:
            return 0 in self.pixels or self.pixels.keys() == {_white(self)}
        return self.is_lossy and self.num_near >= _BINARY_SHARE * self.num_pixels


def _white(survey: MaskSurvey) -> int:
    return _WHITE if survey.are_values else 0xFFFFFF


def survey_masks(paths: Iterable[Path]) -> MaskSurvey:
    """Surveys all masks. Grey masks give values, unless others have colours.

    Raises:
        DataError: a mask cannot be read.
    """
    masks = {path: _survey(read_picture(path), path) for path in paths}
    as_values = all(mask.values is not None for mask in masks.values())
    pixels: Counter[int] = Counter()
    files: Counter[int] = Counter()
    for path, mask in masks.items():
        found = mask.values if as_values else mask.colours
        if found is None:
            raise DataError(f"{path} has 16 bits per channel, and other masks have colours; save all in one form")
        pixels.update(found)
        files.update(found.keys())
    return MaskSurvey(
        pixels,
        files,
        as_values,
        any(mask.is_lossy for mask in masks.values()),
        any(mask.colours is None for mask in masks.values()),
        sum(mask.num_near for mask in masks.values()),
        len(masks),
    )


@dataclass(frozen=True)
class _OneMask:
    values: Counter[int] | None
    """None for palettes and colours"""
    colours: Counter[int] | None
    """None for 16 bits"""
    is_lossy: bool
    num_near: int


def _survey(mask: Picture, path: Path) -> _OneMask:
    grey = grey_of(mask)
    num_near = int(np.count_nonzero((grey <= _NEAR) | (grey >= _WHITE - _NEAR)))
    if mask.pixels.dtype == np.uint16:
        return _OneMask(_counted(numbers_of(mask, path)), None, mask.is_lossy, num_near)
    if mask.is_colour or mask.palette is not None:
        colours = _counted(codes_of(mask, path))
        is_grey = mask.palette is None and all(code == (code & 255) * _GREY_STEP for code in colours)
        values = Counter({code & 255: count for code, count in colours.items()}) if is_grey else None
        return _OneMask(values, colours, mask.is_lossy, num_near)
    # 1-bit masks count as 0 and 255, which others of the same set may store with 8 bits.
    values = _counted(mask.as_shown() if mask.highest == 1 else mask.pixels)
    step = _GREY_STEP * (_WHITE // max(mask.highest, 1) if mask.highest > 1 else 1)
    return _OneMask(values, Counter({value * step: n for value, n in values.items()}), mask.is_lossy, num_near)


def _counted(values: np.ndarray) -> Counter[int]:
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(), minlength=256)
        return Counter({value: int(counts[value]) for value in np.flatnonzero(counts).tolist()})
    found, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def binary_table(paths: Sequence[Path], requests: Sequence[Request], threshold: int | None) -> LabelTable:
    """Returns the table of binary masks: black is background, the rest is the one class.

    Args:
        paths: all masks.
        requests: at most one class, for its name.
        threshold: grey value from which a pixel is foreground; by default the brighter of two values is, and from 128
            on in lossy masks.

    Raises:
        UsageError: the masks are not binary; the message has a line to paste. Lists all colours or values.
    """
    survey = survey_masks(paths)
    if not survey.is_binary:
        if threshold is not None:
            raise UsageError(
                f"--threshold is for binary masks, and these {counted(survey.num_files, 'mask')} have "
                f"{len(survey.pixels)} colours or values; say what they mean: {paste_line(survey)}"
            )
        logger.info("%s\n%s", describe(survey), paste_line(survey))
        raise UsageError(
            f"{describe(survey)}; nothing was written, because only you know what they mean. Give each its name: "
            f"{paste_line(survey)}"
        )
    classes = classes_of(requests) if requests else Classes((_FOREGROUND,))
    if threshold is not None or len(survey.pixels) > _BINARY_VALUES:
        return LabelTable(classes, threshold=_THRESHOLD if threshold is None else threshold)
    found = [(value, int(value != 0)) for value in sorted(survey.pixels)]
    if survey.are_values and not survey.is_deep and max(survey.pixels) == _WHITE:
        return LabelTable(classes, threshold=_THRESHOLD)  # 1-bit masks store 1 for 255
    if survey.are_values:
        return LabelTable(classes, ranges=tuple((value, value, label) for value, label in found))
    return LabelTable(classes, colours=tuple(found))


def describe(survey: MaskSurvey) -> str:
    """Formats `5 colours in 20 masks: #000000 91.6 %, #0000ff 4.4 % (19 masks), ...`, most frequent first."""
    what = counted(len(survey.pixels), "value" if survey.are_values else "colour")
    parts = []
    for value, count in survey.pixels.most_common(_SHOWN):
        in_files = survey.files[value]
        where = "" if in_files == survey.num_files else f" ({counted(in_files, 'mask')})"
        parts.append(f"{_shown(survey, value)} {100 * count / survey.num_pixels:.1f} %{where}")
    more = f" and {len(survey.pixels) - _SHOWN} more" if len(survey.pixels) > _SHOWN else ""
    return f"{what} in {counted(survey.num_files, 'mask')}: {', '.join(parts)}{more}"


def paste_line(survey: MaskSurvey) -> str:
    """Formats the flag that names all colours or values besides black."""
    others = [value for value, _ in survey.pixels.most_common() if value != 0]
    if survey.are_values and len(others) > _SHOWN:
        return "--labels foreground=128-255"
    return "--labels " + " ".join(f"class{i}={_shown(survey, value)}" for i, value in enumerate(others[:_SHOWN], 1))


def _shown(survey: MaskSurvey, value: int) -> str:
    return str(value) if survey.are_values else f"#{value:06x}"


def is_one_white_class(requests: Sequence[Request]) -> bool:
    """Whether `--labels` only names the white of binary masks: one class, as 255, as #ffffff or by its name alone."""
    others = [request for request in requests if request.name != BACKGROUND]
    if len(others) != 1 or others[0].name == IGNORE or others[0].words:
        return False
    only = others[0]
    is_plain = not only.colours and not only.ranges
    return is_plain or only.colours == (0xFFFFFF,) or only.ranges == ((_WHITE, _WHITE),)
