"""Roboflow's semantic masks: `x_mask.png` beside each picture, and `_classes.csv` with the value of each class."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, Request
from nnunetv2.dataset_conversion.import_images.label_sources import MaskSource
from nnunetv2.dataset_conversion.import_images.label_table import LabelTable, table_of
from nnunetv2.dataset_conversion.import_images.layouts.layout import (
    NO_TABLE,
    PARTS,
    TRAIN,
    Export,
    FoundCase,
    Options,
    Place,
    masks_of,
    table_for,
    with_table,
)
from nnunetv2.dataset_conversion.import_images.pairing import list_pictures
from nnunetv2.dataset_conversion.import_images.text_files import read_text
from nnunetv2.errors import DataError

_TABLE = "_classes.csv"
_END = "_mask"


def fits(place: Place) -> bool:
    return place.masks is None and any((folder / _TABLE).is_file() for _, folder in _folders(place.images))


def collect(place: Place, test: Place | None, options: Options) -> Export:
    """Pairs each picture with its mask; `train`, `valid` and `test` are the parts.

    Raises:
        DataError: a picture has no mask, or the parts have different classes.
    """
    cases: list[FoundCase] = []
    tables: dict[Path, tuple[Request, ...]] = {}
    for part, folder in _folders(place.images):
        files = list_pictures(folder)
        if not files:
            continue
        masks = {path.stem.removesuffix(_END): path for path in files if path.stem.endswith(_END)}
        for image in files:
            if image.stem.endswith(_END):
                continue
            if image.stem not in masks:
                raise DataError(
                    f"There is no {image.stem}{_END}.png beside {image}; export it again, or remove the picture"
                )
            cases.append(FoundCase(image, image.stem, MaskSource(masks[image.stem], NO_TABLE), part))
        if (folder / _TABLE).is_file():
            tables[folder / _TABLE] = _requests(folder / _TABLE)
    table = _table(tables, cases, options)
    return Export(with_table(cases, table), table.classes)


def _folders(root: Path) -> list[tuple[str, Path]]:
    inside = [(part, root / name) for name, part in PARTS.items() if (root / name).is_dir()]
    return inside or [(TRAIN, root)]


def _table(tables: dict[Path, tuple[Request, ...]], cases: list[FoundCase], options: Options) -> LabelTable:
    if options.requests:
        return table_for(masks_of(cases), options)
    first, *others = tables
    for other in others:
        if tables[other] != tables[first]:
            raise DataError(f"{first} and {other} name different classes; export all parts from one version")
    return table_of(tables[first], options.snap)


def _requests(path: Path) -> tuple[Request, ...]:
    """Reads the columns `Pixel Value` and `Class`.

    Raises:
        DataError: a row has no value or name.
    """
    requests = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",", 1)]
        if not any(cells) or (number == 1 and not cells[0].isdecimal()):
            continue
        if len(cells) < 2 or not cells[0].isdecimal() or not cells[1]:  # noqa: PLR2004 - columns
            raise DataError(f"{path}, line {number}: {line!r} is not a pixel value and a class")
        name = BACKGROUND if cells[1].lower() == BACKGROUND else cells[1]
        requests.append(Request(name, ranges=((int(cells[0]), int(cells[0])),)))
    return tuple(requests)
