"""The layout of ADE20K and mmsegmentation, and that of Ultralytics for semantic segmentation.

`images` or `img_dir`, beside it `annotations`, `ann_dir` or `masks`, each with a folder per part of the data. Values
are classes and 255 is ignored. A `data.yaml` names them, value 0 first.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunetv2.dataset_conversion.import_images.classes import Classes
from nnunetv2.dataset_conversion.import_images.label_table import LabelTable, numbers_of
from nnunetv2.dataset_conversion.import_images.layouts.layout import (
    IGNORED_VALUE,
    PARTS,
    TEST,
    Export,
    FoundCase,
    Options,
    Place,
    masks_of,
    named_values,
    notes_on,
    paired,
    table_for,
    with_ignored_value,
    with_table,
)
from nnunetv2.dataset_conversion.import_images.layouts.yaml_names import DATA_YAML, read_names
from nnunetv2.dataset_conversion.import_images.pairing import list_pictures
from nnunetv2.errors import DataError
from nnunetv2.imageio.pictures import read_picture

_IMAGES = ("images", "img_dir")
_MASKS = ("annotations", "ann_dir", "masks")


def fits(place: Place) -> bool:
    """True if both folders have at least one part with pictures in common."""
    return place.masks is None and any(masks is not None for _, _, masks in _parts(place.images))


def collect(place: Place, test: Place | None, options: Options) -> Export:
    """Pairs the pictures and masks of each part.

    Raises:
        DataError: a folder of pictures has no masks, or a value is unknown.
    """
    cases: list[FoundCase] = []
    notes: list[str] = []
    for part, images, masks in _parts(place.images):
        files = list_pictures(images)
        if masks is None and part == TEST:
            cases += [FoundCase(image, image.stem, None, TEST) for image in files]
            continue
        if masks is None:
            raise DataError(f"There are no masks for {images}; they lie in {images.name} below {' or '.join(_MASKS)}")
        found, pairs = paired(files, list_pictures(masks), part, options)
        cases += found
        notes += notes_on(pairs, options, images)
    table = _table(place.images, masks_of(cases), options)
    return Export(with_table(cases, table), table.classes, tuple(notes))


def _parts(root: Path) -> list[tuple[str, Path, Path | None]]:
    """Part, folder of pictures, and folder of masks if there are any."""
    found = []
    for name, part in PARTS.items():
        images = [folder / name for folder in (root / each for each in _IMAGES) if list_pictures(folder / name)]
        masks = [folder / name for folder in (root / each for each in _MASKS) if list_pictures(folder / name)]
        found += [(part, each, masks[0] if masks else None) for each in images[:1]]
    return found


def _table(root: Path, masks: list[Path], options: Options) -> LabelTable:
    if options.requests:
        table = with_ignored_value(table_for(masks, options), masks)
    elif (root / DATA_YAML).is_file():
        table = named_values(read_names(root / DATA_YAML), masks, options)
    else:
        table = with_ignored_value(_numbered(masks), masks)
    return _with_zero_ignored(table) if options.reduce_zero_label else table


def _numbered(masks: list[Path]) -> LabelTable:
    """Every value is the label of the same number."""
    values = {int(value) for path in masks for value in np.unique(numbers_of(read_picture(path), path))}
    highest = max(values - {IGNORED_VALUE}, default=0)
    if highest == 0:
        raise DataError(f"The {len(masks)} masks have no value besides 0 and {IGNORED_VALUE}")
    classes = Classes(tuple(f"class{value}" for value in range(1, highest + 1)))
    return LabelTable(classes, ranges=tuple((value, value, value) for value in range(highest + 1)))


def _with_zero_ignored(table: LabelTable) -> LabelTable:
    """mmsegmentation's `reduce_zero_label`: what is 0 in the masks has no label."""
    classes = table.classes.with_ignore()
    others = [entry for entry in table.ranges if entry[:2] != (0, 0)]
    return replace(table, classes=classes, ranges=((0, 0, classes.ignore_label), *others))
