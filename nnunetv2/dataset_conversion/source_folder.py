"""Look through a folder in one of the older layouts before anything is converted."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from nnunetv2.dataset_conversion.older_dataset_json import FILE_ENDING
from nnunetv2.errors import DataError, UsageError

NEEDED = ("dataset.json", "imagesTr", "labelsTr")
_CHANNEL_NUMBER = re.compile(r"_\d{4}$")


def existing_source(folder: str | os.PathLike) -> Path:
    """Returns the folder as an absolute path, with links left as they are.

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
    """Names of the .nii.gz files without their ending, sorted; names that begin like `not_images` are left out."""
    names = (path.name for path in folder.iterdir() if path.name.endswith(FILE_ENDING) and path.is_file())
    return sorted(name.removesuffix(FILE_ENDING) for name in names if not name.startswith(not_images))


def channels_per_case(images: Iterable[str]) -> Counter[str]:
    """Number of images of each case, where images are named like their case and a channel number."""
    return Counter(_CHANNEL_NUMBER.sub("", name) for name in images)


def require_channels(num_channels: Mapping[str, int], channel_names: Mapping[str, str], folder: Path) -> None:
    """Raises `DataError` unless each case has as many channels as dataset.json names."""
    for case, number in num_channels.items():
        if number != len(channel_names):
            raise DataError(
                f"{folder}: case {case} has {number} channels, dataset.json names {len(channel_names)} "
                f"({', '.join(channel_names.values())}); correct the images or the entry modality"
            )


def require_pairs(images: Iterable[str], labels: Iterable[str], folder: Path) -> None:
    """Raises `DataError` unless there are cases, each with an image and a label."""
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
