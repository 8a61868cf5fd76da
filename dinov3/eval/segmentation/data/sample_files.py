"""Finds the images of a dataset and their label maps, in natural order of their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dinov3.eval.segmentation.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIX
from dinov3.utils.errors import DataError, UsageError
from dinov3.utils.visible_files import visible_files

FilePair = tuple[Path, Path]
"""An image and its label map."""


def pairs_of_folders(image_folder: Path, mask_folder: Path) -> list[FilePair]:
    """Pairs all images of one folder with the label maps of the same names in another. Hidden files are skipped.

    Raises:
        UsageError: a folder does not exist.
        DataError: there are no images, an image has no label map or vice versa, or two images have the same name; the
            message names the first such file.
    """
    images = _by_name(_files(image_folder, IMAGE_SUFFIXES))
    masks = _by_name(_files(mask_folder, (MASK_SUFFIX,)))
    if not images:
        raise DataError(f"{image_folder} holds no images; put files there that end with {_ENDINGS}")
    without_mask = natural_order(images.keys() - masks.keys())
    if without_mask:
        missing = mask_folder / (without_mask[0] + MASK_SUFFIX)
        raise DataError(f"{images[without_mask[0]]} has no mask{_and_more(without_mask)}; add {missing}")
    without_image = natural_order(masks.keys() - images.keys())
    if without_image:
        raise DataError(
            f"{masks[without_image[0]]} has no image{_and_more(without_image)}; remove it, or add "
            f"{image_folder / without_image[0]} with one of the endings {_ENDINGS}"
        )
    return [(images[name], masks[name]) for name in natural_order(images)]


def pairs_of_list(list_file: Path, image_folder: Path, mask_folder: Path) -> list[FilePair]:
    """Pairs the images listed in a text file, one path below `image_folder` per line; the folders may contain more.

    Raises:
        UsageError: a folder does not exist.
        DataError: a line names a missing image, an image without a label map, or a duplicate.
    """
    try:
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as err:
        raise DataError(f"{list_file} is not text; replace it by a list of image paths, or remove it") from err
    listed = [Path(line.strip()) for line in lines if line.strip()]
    if not listed:
        raise DataError(f"{list_file} names no images; remove it to use all images of the split")
    images = _by_name(image_folder / path for path in listed)
    masks = {path.stem: (mask_folder / path).with_suffix(MASK_SUFFIX) for path in listed}
    folders = {path.parent for path in listed}  # listing these few folders is faster than checking each file
    existing = {
        file
        for folder in folders
        for file in (*_files(image_folder / folder, IMAGE_SUFFIXES), *_files(mask_folder / folder, (MASK_SUFFIX,)))
    }
    names = natural_order(images)
    for name in names:
        if images[name] not in existing:
            raise DataError(
                f"{list_file} names {images[name]}, and there is no image of this name with one of the endings "
                f"{_ENDINGS}; add it or remove the line"
            )
        if masks[name] not in existing:
            raise DataError(f"{images[name]} has no mask; add {masks[name]}")
    return [(images[name], masks[name]) for name in names]


def natural_order(names: Iterable[str]) -> list[str]:
    """Sorts names numerically, `frame2` before `frame10`; the order is the same on every machine."""

    def key(name: str) -> tuple[list[tuple[int, int | str]], str]:
        parts = re.findall(r"\d+|\D+", name)
        return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], name

    return sorted(names, key=key)


_ENDINGS = ", ".join(IMAGE_SUFFIXES)


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist; check datasets.root and the split of the dataset")
    return [path for path in visible_files(folder) if path.suffix.lower() in suffixes]


def _by_name(paths: Iterable[Path]) -> Mapping[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(paths):
        if path.stem in found:
            raise DataError(f"{found[path.stem]} and {path} have the same name; rename or remove one of them")
        found[path.stem] = path
    return found


def _and_more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""
