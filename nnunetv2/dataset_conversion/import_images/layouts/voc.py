"""The layout of PASCAL VOC, as CVAT (`labelmap.txt`) and labelme2voc (`class_names.txt`) export it.

Masks lie in `SegmentationClass`; `ImageSets/Segmentation/train.txt`, `val.txt` and others limit the cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, IGNORE, Request
from nnunetv2.dataset_conversion.import_images.label_table import LabelTable, table_of
from nnunetv2.dataset_conversion.import_images.layouts.layout import (
    PARTS,
    TEST,
    TRAIN,
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
from nnunetv2.dataset_conversion.import_images.pairing import list_pictures
from nnunetv2.dataset_conversion.import_images.text_files import read_text
from nnunetv2.errors import DataError

_MASKS = ("SegmentationClass", "SegmentationClassPNG")
_IMAGES = ("JPEGImages", "images", "Images")
_COLOUR_MAP, _NAMES = "labelmap.txt", "class_names.txt"
_BACKGROUNDS = ("_background_", BACKGROUND)
_IGNORED = ("__ignore__", IGNORE)
_COLOUR = 3  # parts


def fits(place: Place) -> bool:
    return place.masks is None and any(list_pictures(place.images / name) for name in _MASKS)


def collect(place: Place, test: Place | None, options: Options) -> Export:
    """Pairs the listed cases.

    Raises:
        DataError: a listed case, the pictures, or the meaning of a colour is missing.
    """
    root = place.images
    masks = next(found for name in _MASKS if (found := list_pictures(root / name)))
    images = next((found for name in _IMAGES if (found := list_pictures(root / name))), [])
    if not images:
        raise DataError(
            f"{root} has masks but no pictures; put them into {_IMAGES[0]} (CVAT exports them with 'Save images')"
        )
    part_of = _listed_parts(root)
    notes: list[str] = []
    if part_of:
        missing = sorted(part_of.keys() - {image.stem for image in images})
        if missing:
            raise DataError(f"{root} lists {', '.join(missing[:5])} in ImageSets/Segmentation without a picture")
        notes.append(f"{len(part_of)} of {len(images)} pictures are listed in ImageSets/Segmentation")
        images = [image for image in images if image.stem in part_of]
    unlabelled = [image for image in images if part_of.get(image.stem) == TEST and not _has_mask(image, masks)]
    found, pairs = paired([image for image in images if image not in unlabelled], masks, TRAIN, options)
    if part_of:
        pairs = replace(pairs, unused=())
    cases = [case if case.source is None else replace(case, part=part_of.get(case.image.stem, TRAIN)) for case in found]
    cases += [FoundCase(image, image.stem, None, TEST) for image in unlabelled]
    table = _table(root, masks_of(cases), options)
    return Export(with_table(cases, table), table.classes, (*notes, *notes_on(pairs, options, root)))


def _has_mask(image: Path, masks: list[Path]) -> bool:
    return image.stem in {mask.stem for mask in masks}


def _listed_parts(root: Path) -> Mapping[str, str]:
    """Part of each case that the lists name; empty without lists. `trainval` yields to `train` and `val`."""
    parts: dict[str, str] = {}
    lists = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
    for path in sorted(lists, key=lambda path: path.stem.lower() in PARTS):
        part = PARTS.get(path.stem.lower(), TRAIN)
        for line in read_text(path).splitlines():
            if line.strip():
                parts[Path(line.strip()).stem if "." in Path(line.strip()).name else Path(line.strip()).name] = part
    return parts


def _table(root: Path, masks: list[Path], options: Options) -> LabelTable:
    if options.requests:
        return with_ignored_value(table_for(masks, options), masks)
    if (root / _COLOUR_MAP).is_file():
        return table_of(_colour_map(root / _COLOUR_MAP), options.snap)
    if (root / _NAMES).is_file():
        names = [line.strip() for line in read_text(root / _NAMES).splitlines()]
        names = [name for name in names if name and name not in _IGNORED]
        background = next((name for name in names if name in _BACKGROUNDS), None)
        return named_values(names, masks, options, background=background)
    return table_for(masks, options)


def _colour_map(path: Path) -> list[Request]:
    """Reads the lines `name:r,g,b:parts:actions`.

    Raises:
        DataError: a line has another form.
    """
    requests = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        parts = rest.split(":")[0].split(",")
        if len(parts) != _COLOUR or not all(part.strip().isdecimal() and int(part) <= 255 for part in parts):  # noqa: PLR2004 - a byte
            raise DataError(f"{path}, line {number}: {line!r} is not of the form name:r,g,b::")
        red, green, blue = map(int, parts)
        shown = BACKGROUND if name in _BACKGROUNDS else IGNORE if name in _IGNORED else name
        requests.append(Request(shown, colours=(red << 16 | green << 8 | blue,)))
    return requests
