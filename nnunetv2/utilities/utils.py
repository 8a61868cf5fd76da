"""Find the images and labels of the cases in a folder of the raw dataset format."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from dinov3.utils.json_files import read_json
from dinov3.utils.visible_files import visible_files
from nnunetv2.errors import DataError
from nnunetv2.utilities.channel_files import check_numbering
from nnunetv2.utilities.dataset_json import LARGEST_FILE, check_listed_cases, file_ending

_CHANNEL = re.compile(r"(.+)_(\d{4})", re.DOTALL)


def _files_of_folder(folder: str | os.PathLike, file_ending: str) -> list[str]:
    """Sorted names of the files with this ending."""
    if not Path(folder).is_dir():
        raise DataError(f"There is no folder {os.fspath(folder)}")
    return [path.name for path in visible_files(folder, file_ending)]


def _files_by_case(folder: str | os.PathLike, file_ending: str) -> dict[str, list[str]]:
    """File names of the channels of each case, both in ascending order."""
    cases: dict[str, list[str]] = defaultdict(list)
    for name in _files_of_folder(folder, file_ending):
        match = _CHANNEL.fullmatch(name[: len(name) - len(file_ending)])
        if not match:
            raise DataError(
                f"{os.path.join(folder, name)} has no channel number; images are named CASE_0000{file_ending}, "
                f"CASE_0001{file_ending} and so on, with one file for each channel"
            )
        cases[match[1]].append(name)
    return dict(sorted(cases.items()))


def get_identifiers_from_splitted_dataset_folder(folder: str | os.PathLike, file_ending: str) -> list[str]:
    """List the case identifiers of a folder of images, sorted.

    Raises:
        DataError: the folder does not exist, or a file with the ending has no channel number.
    """
    return list(_files_by_case(folder, file_ending))


def create_paths_fn(folder: str | os.PathLike, files: Iterable[str], file_ending: str, f: str) -> list[str]:
    """Select the channel files of case `f` among the files of a folder; returns paths in the given order."""
    pattern = re.compile(re.escape(f) + r"_\d{4}" + re.escape(file_ending))
    return [os.path.join(folder, name) for name in files if pattern.fullmatch(name)]


def create_lists_from_splitted_dataset_folder(
    folder: str | os.PathLike,
    file_ending: str,
    identifiers: Sequence[str] | None = None,
    num_processes: int | None = None,
) -> list[list[str]]:
    """List the channel files of each case; empty for cases without files.

    Args:
        identifiers: the cases; by default all in the folder, sorted.
        num_processes: ignored; upstream starts processes for this.
    """
    cases = _files_by_case(folder, file_ending)
    wanted = cases if identifiers is None else identifiers
    return [[os.path.join(folder, name) for name in cases.get(case, [])] for case in wanted]


def get_filenames_of_train_images_and_targets(
    raw_dataset_folder: str | os.PathLike, dataset_json: dict | None = None
) -> dict[str, dict[str, str | list[str]]]:
    """Map the training cases of a dataset to `{"images": [path per channel], "label": path}`.

    The cases come from the entry `dataset` of dataset.json if present, whose paths may be relative to the dataset
    folder and contain environment variables, and otherwise from `imagesTr` and `labelsTr`.

    Raises:
        DataError: dataset.json lacks an entry, a case name is not a valid file name, or channel files are missing.
    """
    source = os.path.join(raw_dataset_folder, "dataset.json")
    if dataset_json is None:
        dataset_json = read_json(source, largest=LARGEST_FILE, unique_keys=True)
    if "dataset" in dataset_json:
        check_listed_cases(dataset_json["dataset"], source)
        return {case: _listed_case(raw_dataset_folder, entry) for case, entry in dataset_json["dataset"].items()}
    ending = file_ending(dataset_json, source)
    images = os.path.join(raw_dataset_folder, "imagesTr")
    files = _files_by_case(images, ending)
    for names in files.values():
        check_numbering(names)
    return {
        case: {
            "images": [os.path.join(images, name) for name in names],
            "label": os.path.join(raw_dataset_folder, "labelsTr", case + ending),
        }
        for case, names in files.items()
    }


def _listed_case(root: str | os.PathLike, entry: dict) -> dict[str, str | list[str]]:
    return {
        "images": [_absolute(root, path) for path in entry["images"]],
        "label": _absolute(root, entry["label"]),
    }


def _absolute(root: str | os.PathLike, path: str) -> str:
    expanded = os.path.expandvars(path)
    return expanded if os.path.isabs(expanded) else os.path.abspath(os.path.join(root, expanded))
