"""Pictures in one folder, masks in another; or a table with the columns image and mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunetv2.dataset_conversion.import_images.label_sources import MaskSource
from nnunetv2.dataset_conversion.import_images.layouts.layout import (
    NO_TABLE,
    TEST,
    TRAIN,
    Export,
    FoundCase,
    Options,
    Place,
    masks_of,
    notes_on,
    paired,
    table_for,
    with_table,
)
from nnunetv2.dataset_conversion.import_images.pairing import list_pictures, pictures_in, without_suffixes
from nnunetv2.dataset_conversion.import_images.text_files import read_table
from nnunetv2.errors import DataError, UsageError

_IMAGE_FOLDERS = ("images", "image", "imgs", "img")
_MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "groundtruth", "ground_truth",
    "1st_manual", "2nd_manual", "manual", "manual1", "segmentation", "segmentations", "seg",
)  # fmt: skip
_COLUMNS = ("image", "mask", "fov", "group")


def fits(place: Place) -> bool:
    """True for a table, for two folders of pictures, and for a folder with one `images` and one `masks`."""
    if place.images.suffix.lower() == ".csv":
        return place.masks is None
    try:
        place = _resolved(place)
    except UsageError:
        return False
    return bool(list_pictures(place.images)) and bool(place.masks and list_pictures(place.masks))


def collect(place: Place, test: Place | None, options: Options) -> Export:
    """Pairs pictures and masks.

    Raises:
        UsageError: no folder of masks can be told.
        DataError: pictures or masks are missing.
    """
    cases, notes = pair_all(place, test, options)
    table = table_for(masks_of(cases), options)
    return Export(with_table(cases, table), table.classes, tuple(notes))


def pair_all(place: Place, test: Place | None, options: Options) -> tuple[list[FoundCase], list[str]]:
    """Pairs the pictures and masks of training and test, as yet without a table; returns notes for the log as well."""
    notes: list[str] = []
    cases: list[FoundCase] = []
    for each, part in ((place, TRAIN), (test, TEST)):
        if each is not None:
            found, said = _cases_of(each, part, options)
            cases += found
            notes += said
    return cases, notes


def _cases_of(place: Place, part: str, options: Options) -> tuple[list[FoundCase], list[str]]:
    if place.images.suffix.lower() == ".csv":
        return _from_table(place.images, part, options)
    place = _resolved(place)
    images, masks = pictures_in(place.images), pictures_in(place.masks)
    if place.images.resolve() == place.masks.resolve():
        images, masks = _apart(images)
    cases, pairs = paired(images, masks, part, options)
    return cases, notes_on(pairs, options, place.images)


def _resolved(place: Place) -> Place:
    """Finds `images` and `masks` below a folder that is given alone.

    Raises:
        UsageError: they cannot be told.
    """
    if place.masks is not None:
        return place
    if not place.images.is_dir():
        raise UsageError(f"There is no folder {place.images}; name the folder of pictures with -i")
    folders = {path.name.lower(): path for path in sorted(place.images.iterdir()) if path.is_dir()}
    images = [folders[name] for name in _IMAGE_FOLDERS if name in folders]
    masks = [folders[name] for name in _MASK_FOLDERS if name in folders]
    if len(images) == 1 and len(masks) == 1:
        return Place(images[0], masks[0])
    there = f"it has the folders {', '.join(sorted(folders))}" if folders else "it has no folders"
    raise UsageError(f"The masks of {place.images} are not named; give their folder with -m ({there})")


def _apart(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tells masks from pictures in one folder: their names are those of pictures with an ending such as _mask.

    Raises:
        DataError: no file has such a name.
    """
    stems = {path.stem.lower() for path in files}
    masks = [path for path in files if _base(path) != path.stem.lower() and _base(path) in stems]
    if not masks:
        raise DataError(
            f"{files[0].parent} is the folder of pictures and of masks, and no name says which files are masks (as "
            f"x_mask.png beside x.png does); put them into a folder of their own"
        )
    return [path for path in files if path not in masks], masks


def _base(path: Path) -> str:
    return without_suffixes(path.stem).lower()


def _from_table(table: Path, part: str, options: Options) -> tuple[list[FoundCase], list[str]]:
    """Reads a table with the columns `image`, `mask` and optionally `fov` and `group`; paths are relative to it.

    Raises:
        UsageError: the table does not exist or lacks a column.
        DataError: a row has no image, or no mask.
    """
    rows = _rows(table)
    cases, without = [], []
    for number, row in enumerate(rows, 2):
        if not row["image"]:
            raise DataError(f"{table}, line {number}, has no image")
        image, mask, fov = (_file(table, row.get(column), number) for column in _COLUMNS[:3])
        group = row.get("group") or None
        if mask is None and part == TRAIN:
            without.append(image)
            if options.images_without_mask is None:
                raise DataError(
                    f"{table}, line {number}: {image.name} has no mask; leave such pictures out with "
                    f"--images_without_mask skip, or make them test images with --images_without_mask test"
                )
            if options.images_without_mask != TEST:
                continue
        source = None if mask is None else MaskSource(mask, NO_TABLE)
        cases.append(FoundCase(image, image.stem, source, part if source else TEST, fov, group))
    notes = [f"{len(without)} pictures of {table.name} without mask"] if without else []
    return _with_distinct_names(cases), notes


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise UsageError(f"There is no table {table}")
    columns, rows = read_table(table)
    if not {"image", "mask"}.issubset(columns) or not set(columns).issubset(_COLUMNS):
        raise UsageError(
            f"{table} has the columns {', '.join(columns) or 'none'}; they must be image, mask and, if "
            f"needed, fov and group"
        )
    return rows


def _file(table: Path, name: str | None, line: int) -> Path | None:
    if not name:
        return None
    path = table.parent / name
    if not path.is_file():
        raise DataError(f"{table}, line {line}: there is no {path}; paths are relative to the folder of the table")
    return path


def _with_distinct_names(cases: Sequence[FoundCase]) -> list[FoundCase]:
    """Puts the folder before names that several pictures have."""
    number = Counter(case.name for case in cases)
    return [
        replace(case, name=f"{case.image.parent.name}_{case.name}") if number[case.name] > 1 else case for case in cases
    ]
