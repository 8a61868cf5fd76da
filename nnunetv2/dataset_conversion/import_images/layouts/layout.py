"""What every layout gets and gives: places and options in, cases and classes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2.dataset_conversion.import_images.classes import IGNORE, Classes, Request
from nnunetv2.dataset_conversion.import_images.label_sources import LabelSource, MaskSource
from nnunetv2.dataset_conversion.import_images.label_table import LabelTable, numbers_of, table_of
from nnunetv2.dataset_conversion.import_images.mask_census import binary_table, is_one_white_class, survey_masks
from nnunetv2.dataset_conversion.import_images.pairing import Pairs, pair
from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.pictures import read_picture

TRAIN, VALIDATION, TEST = "train", "val", "test"
PARTS = {"train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION} | {
    "test": TEST,
    "testing": TEST,
}
"""Part of the dataset of each folder name that exports use."""

IGNORED_VALUE = 255
NO_TABLE = LabelTable(Classes(()))
"""Stands in until all masks are known; see `with_table`."""
_LOSSY_ENDINGS = (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Place:
    """Where an export lies."""

    images: Path
    """`-i`: a folder of pictures, or the export itself"""
    masks: Path | None = None
    """`-m`"""


@dataclass(frozen=True)
class Options:
    """What the command line says about labels and names."""

    requests: tuple[Request, ...] = ()
    snap: float | None = None
    threshold: int | None = None
    pattern: str | None = None
    """`--pair`"""
    images_without_mask: str | None = None
    """`skip`, `test`, or None to reject them"""
    overlap: str | None = None
    reduce_zero_label: bool = False


@dataclass(frozen=True)
class FoundCase:
    """One picture of an export."""

    image: Path
    name: str
    source: LabelSource | None = None
    """None for test images without labels"""
    part: str = TRAIN
    fov: Path | None = None
    group: str | None = None


@dataclass(frozen=True)
class Export:
    """The cases of an export with their classes."""

    cases: tuple[FoundCase, ...]
    classes: Classes
    notes: tuple[str, ...] = ()
    """what was assumed or left out, for the log"""
    warnings: tuple[str, ...] = ()
    """what is probably a mistake"""


def table_for(masks: Sequence[Path], options: Options) -> LabelTable:
    """Returns the table that `--labels` describes, or that of binary masks.

    Raises:
        UsageError: the masks are not binary and `--labels` is missing, or says something else.
    """
    requests = options.requests
    is_plain = not any(request.colours or request.ranges or request.words for request in requests)
    if not requests or (is_one_white_class(requests) and (is_plain or options.threshold is not None)):
        return binary_table(masks, requests, options.threshold)
    if options.threshold is not None:
        raise UsageError(
            "--threshold is for binary masks of one class; leave it out, or name only that class in --labels"
        )
    is_lossy = any(path.suffix.lower() in _LOSSY_ENDINGS for path in masks)
    if options.snap is None and is_lossy and is_one_white_class(requests) and survey_masks(masks).is_binary:
        return binary_table(masks, requests, None)
    return table_of(requests, options.snap)


def named_values(
    names: Sequence[str], masks: Sequence[Path], options: Options, *, background: str | None = None
) -> LabelTable:
    """Returns the table of masks in which the value n means the n-th name; 255 is ignored if it occurs.

    Args:
        names: by value.
        background: the name that is the background instead of `background`.
    """
    requests = [Request("background" if name == background else name, ranges=((n, n),)) for n, name in enumerate(names)]
    return with_ignored_value(table_of([each for each in requests if each.name != IGNORE], options.snap), masks)


def with_ignored_value(table: LabelTable, masks: Sequence[Path]) -> LabelTable:
    """Adds 255 as the ignore label to a table of values if it occurs in the masks and means nothing else."""
    if not table.ranges or any(low <= IGNORED_VALUE <= high for low, high, _ in table.ranges):
        return table
    if not any((numbers_of(read_picture(path), path) == IGNORED_VALUE).any() for path in masks):
        return table
    classes = table.classes.with_ignore()
    return LabelTable(
        classes, ranges=(*table.ranges, (IGNORED_VALUE, IGNORED_VALUE, classes.ignore_label)), snap=table.snap
    )


def with_table(cases: Sequence[FoundCase], table: LabelTable) -> tuple[FoundCase, ...]:
    """The same cases, whose masks are read with a table."""
    return tuple(
        case if case.source is None else replace(case, source=replace(case.source, table=table)) for case in cases
    )


def masks_of(cases: Iterable[FoundCase]) -> list[Path]:
    """Files that the labels of the cases come from."""
    return [path for case in cases if case.source is not None for path in case.source.files]


def paired(images: Sequence[Path], masks: Sequence[Path], part: str, options: Options) -> tuple[list[FoundCase], Pairs]:
    """Pairs pictures and masks of one part; the sources of the cases have no table yet.

    Raises:
        DataError: as `pair`, or no picture is left.
    """
    pairs = pair(images, masks, pattern=options.pattern, may_lack_masks=options.images_without_mask is not None)
    cases = []
    for image in images:
        if image in pairs.masks:
            cases.append(FoundCase(image, pairs.names[image], MaskSource(pairs.masks[image], NO_TABLE), part))
        elif options.images_without_mask == TEST:
            cases.append(FoundCase(image, pairs.names[image], None, TEST))
    if not cases:
        raise DataError(f"None of the {len(images)} pictures in {images[0].parent} has a mask")
    return cases, pairs


def notes_on(pairs: Pairs, options: Options, where: Path) -> list[str]:
    """Describes how pictures and masks were paired, and what was left out."""
    notes = [f"{where}: {len(pairs.masks)} pictures and masks paired by {pairs.rule}"]
    if pairs.unpaired:
        fate = "are test images" if options.images_without_mask == TEST else "are left out"
        notes.append(f"{len(pairs.unpaired)} pictures without mask {fate}: {_listed(pairs.unpaired)}")
    if pairs.unused:
        notes.append(f"{len(pairs.unused)} masks without picture are not used: {_listed(pairs.unused)}")
    return notes


def _listed(paths: Sequence[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")  # noqa: PLR2004 - shown
