"""Read datasets of older layouts: check their folders, and translate their dataset.json to nnU-Net v2."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.dataset_json import check_dataset_json
from nnunetv2.utilities.file_names import shortened
from nnunetv2.utilities.label_handling.label_declaration import check_declaration

NEEDED = ("dataset.json", "imagesTr", "labelsTr")
FILE_ENDING = ".nii.gz"  # of all datasets in the older layouts
_CHANNEL_NUMBER = re.compile(r"_\d{4}$")

logger = logging.getLogger(__name__)


def existing_source(folder: str | os.PathLike) -> Path:
    """Return the folder as an absolute path, without resolving links.

    Raises:
        UsageError: it lacks one of `NEEDED`.
    """
    source = Path(os.path.abspath(folder))
    missing = [name for name in NEEDED if not (source / name).exists()]
    if missing:
        there = "" if source.is_dir() else " is no folder, it"
        raise UsageError(f"{source}{there} has no {' and no '.join(missing)}; a dataset has {', '.join(NEEDED)}")
    return source


def nifti_names(folder: Path, not_images: tuple[str, ...] = (".",)) -> list[str]:
    """Sorted names of the .nii.gz files without ending; names that start with one of `not_images` are skipped."""
    names = (path.name for path in folder.iterdir() if path.name.endswith(FILE_ENDING) and path.is_file())
    return sorted(name.removesuffix(FILE_ENDING) for name in names if not name.startswith(not_images))


def channels_per_case(images: Iterable[str]) -> Counter[str]:
    """Number of images per case, for images named after their case and a channel number."""
    return Counter(_CHANNEL_NUMBER.sub("", name) for name in images)


def require_channels(num_channels: Mapping[str, int], channel_names: Mapping[str, str], folder: Path) -> None:
    """Raise `DataError` unless every case has as many channels as dataset.json declares."""
    for case, number in num_channels.items():
        if number != len(channel_names):
            raise DataError(
                f"{folder}: case {case} has {number} channels, dataset.json names {len(channel_names)} "
                f"({', '.join(channel_names.values())}); correct the images or the entry modality"
            )


def require_pairs(images: Iterable[str], labels: Iterable[str], folder: Path) -> None:
    """Raise `DataError` unless there are cases and each has an image and a label."""
    images, labels = set(images), set(labels)
    if not images:
        raise DataError(f"{folder / 'imagesTr'} has no {FILE_ENDING} files; get the dataset again")
    alone = [f"{name} has no label" for name in sorted(images - labels)]
    alone += [f"{name} has no image" for name in sorted(labels - images)]
    if alone:
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        raise DataError(
            f"In imagesTr and labelsTr of {folder} {', '.join(alone[:3])}{more}; get the missing files, or remove the "
            f"others"
        )


def translate_dataset_json(path: Path, num_training_cases: int, dropped: Collection[str]) -> dict[str, Any]:
    """Read an older dataset.json and translate it to nnU-Net v2.

    `modality` becomes `channel_names`, labels map names to integers, and the file ending is added. Other entries are
    kept.

    Args:
        path: the older file.
        num_training_cases: number of cases found.
        dropped: entries to drop if present.

    Raises:
        DataError: an entry is missing or invalid, or `numTraining` differs from the number of cases.
    """
    older = read_json(path)
    if not isinstance(older, dict):
        raise DataError(f"{path} holds {shortened(older)}; it must be an object")
    channel_names = older.get("modality", older.get("channel_names"))
    if not channel_names or "labels" not in older:
        raise DataError(f'{path} must have the entries "modality" and "labels"; it has {", ".join(older) or "none"}')
    announced = older.get("numTraining", num_training_cases)
    if announced != num_training_cases:
        raise DataError(
            f"{path} announces {announced} training cases (numTraining), there are {num_training_cases}; get the "
            f"missing files, or correct the number"
        )
    content = {key: value for key, value in older.items() if key != "modality" and key not in dropped}
    content["labels"] = _labels_by_name(older["labels"], path)
    content |= {"numTraining": num_training_cases, "file_ending": FILE_ENDING, "channel_names": channel_names}
    return check_dataset_json(content, str(path))


def _labels_by_name(older: Mapping[str, str], path: Path) -> dict[str, int]:
    """Invert `{"0": "background", "1": "liver"}`."""
    if not isinstance(older, dict):
        raise DataError(f'{path}: "labels" is {shortened(older)}; it must be like {{"0": "background", "1": "liver"}}')
    labels: dict[str, int] = {}
    for number, name in older.items():
        if not str(number).isdecimal() or not isinstance(name, str):
            raise DataError(
                f'{path}: "labels" has the entry {number!r}: {name!r}; this layout has integers first, like '
                f'{{"0": "background", "1": "liver"}}'
            )
        if int(number) == 0 and name != "background":
            logger.warning('%s: label 0 is named %r; nnU-Net needs the name "background", so it gets that', path, name)
            name = "background"
        if name in labels:
            raise DataError(f'{path}: two of the "labels" are named {name!r}; give each its own name')
        labels[name] = int(number)
    check_declaration(labels, None)
    return labels
