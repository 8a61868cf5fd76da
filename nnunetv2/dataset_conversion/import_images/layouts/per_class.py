"""One binary mask per class, in a folder of the class's name: `artery/`, `vein/`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, IGNORE, Classes
from nnunetv2.dataset_conversion.import_images.label_sources import ClassMasksSource
from nnunetv2.dataset_conversion.import_images.label_table import LabelTable
from nnunetv2.dataset_conversion.import_images.layouts.layout import TEST, TRAIN, Export, FoundCase, Options, Place
from nnunetv2.dataset_conversion.import_images.mask_census import binary_table
from nnunetv2.dataset_conversion.import_images.pairing import list_pictures, pair, pictures_in
from nnunetv2.errors import DataError, UsageError


def fits(place: Place) -> bool:
    """True if the folder of masks has no pictures, but folders with pictures."""
    if place.masks is None or not place.masks.is_dir() or list_pictures(place.masks):
        return False
    return bool(_class_folders(place.masks)) and bool(list_pictures(place.images))


def collect(place: Place, test: Place | None, options: Options) -> Export:
    """Pairs the masks of every class with the pictures; a picture without mask of a class does not have it.

    Raises:
        UsageError: `--labels` names a class that has no folder.
        DataError: a mask belongs to no picture, or a picture to no mask.
    """
    if place.masks is None:
        raise UsageError("--layout per_class needs the folder with the folders of the classes (-m)")
    folders = _chosen_folders(place.masks, options)
    names = [name for name in folders if name not in (BACKGROUND, IGNORE)]
    if options.overlap and options.overlap not in names:
        names.append(options.overlap)
    classes = Classes(tuple(names), IGNORE in folders)
    found = _masks_by_image(place, folders, options, TRAIN)
    if test is not None:
        found += _masks_by_image(test, folders, options, TEST)
    tables = {
        classes.labels[name]: binary_table([masks[name] for *_, masks in found if name in masks], (), options.threshold)
        for name in folders
        if name != BACKGROUND and any(name in masks for *_, masks in found)
    }
    overlap = classes.labels[options.overlap] if options.overlap else None
    cases = [_case(image, name, part, masks, classes, tables, overlap) for image, name, part, masks in found]
    return Export(tuple(cases), classes)


def _class_folders(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and list_pictures(path)}


def _chosen_folders(masks: Path, options: Options) -> dict[str, Path]:
    """Folder of each class, in the order of `--labels` (NAME or NAME=FOLDER), else by name."""
    there = _class_folders(masks) if masks.is_dir() else {}
    if not there:
        raise DataError(f"There is no folder with masks of a class in {masks}")
    if not options.requests:
        return there
    chosen = {}
    for request in options.requests:
        if request.name == options.overlap and request.name not in there and not request.words:
            continue
        folder = request.words[0] if request.words else request.name
        if folder not in there:
            raise UsageError(
                f"--labels names {request.name}, but {masks} has no folder {folder}; it has {', '.join(there)}"
            )
        chosen[request.name] = there[folder]
    return chosen


Found = tuple[Path, str, str, dict[str, Path]]


def _masks_by_image(place: Place, folders: dict[str, Path], options: Options, part: str) -> list[Found]:
    """Picture, name of the case, part, and mask of each class."""
    images = pictures_in(place.images)
    masks: dict[Path, dict[str, Path]] = defaultdict(dict)
    names = {image: image.stem for image in images}
    for name, folder in folders.items():
        files = list_pictures(place.masks / folder.name if place.masks else folder)
        pairs = pair(images, files, pattern=options.pattern, may_lack_masks=True, what=f"{name} mask")
        if pairs.unused:
            raise DataError(f"{pairs.unused[0]} belongs to no picture in {place.images}; say with --pair how to tell")
        names |= {image: pairs.names[image] for image in pairs.masks}
        for image, mask in pairs.masks.items():
            masks[image][name] = mask
    without = [image for image in images if image not in masks]
    if without and options.images_without_mask is None:
        raise DataError(
            f"{without[0]} has no mask of any class; leave such pictures out with --images_without_mask skip"
        )
    found = [(image, names[image], part, masks[image]) for image in images if image in masks]
    if options.images_without_mask == TEST:
        found += [(image, names[image], TEST, {}) for image in without]
    return found


def _case(  # noqa: PLR0913 - a picture and what all of them share
    image: Path,
    name: str,
    part: str,
    masks: dict[str, Path],
    classes: Classes,
    tables: dict[int, LabelTable],
    overlap: int | None,
) -> FoundCase:
    paths = {classes.labels[each]: path for each, path in masks.items() if each != BACKGROUND}
    case = FoundCase(image, name, None, part)
    return replace(case, source=ClassMasksSource(paths, tables, overlap)) if masks else case
