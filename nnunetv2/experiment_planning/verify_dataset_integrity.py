"""Checks a raw dataset before planning: files, dataset.json, and every training case."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dinov3.utils.visible_files import visible_files
from nnunetv2.errors import DataError
from nnunetv2.experiment_planning.suspicious_cases import (
    content_of,
    find_duplicates,
    notes_on_case,
    notes_on_duplicates,
    notes_on_files,
)
from nnunetv2.imageio.checked_reading import read_images, read_seg
from nnunetv2.imageio.geometry import mismatch_is_allowed, placement_differences, spacings_agree
from nnunetv2.imageio.nonfinite_voxels import count_nonfinite_voxels
from nnunetv2.imageio.pictures import IMPORT_COMMAND, is_picture
from nnunetv2.preprocessing.label_values import declared_labels, label_problems
from nnunetv2.utilities.case_identifiers import check_case_identifier
from nnunetv2.utilities.crossval_split import groups_of, separated_groups
from nnunetv2.utilities.dataset_json import channel_names, read_dataset_json
from nnunetv2.utilities.message_parts import counted
from nnunetv2.utilities.processes.case_pool import map_cases
from nnunetv2.utilities.splits_file import SPLITS_FILE, read_splits

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

logger = logging.getLogger(__name__)

_PICTURE_CHANNELS = (1, 2, 3, 4)  # grey, with alpha, RGB, with alpha


def verify_labels(label_file: str, readerclass: type[BaseReaderWriter], expected_labels: Sequence[int]) -> bool:
    """Returns true if a label file contains only expected labels; logs others."""
    segmentation, _ = read_seg(readerclass(), label_file)
    problems = label_problems(segmentation, expected_labels, label_file)
    for problem in problems:
        logger.error(problem)
    return not problems


def check_cases(
    image_files: Sequence[str], label_file: str, expected_num_channels: int, readerclass: type[BaseReaderWriter]
) -> bool:
    """Returns true if images and label of a case match, ignoring label values; logs mismatches."""
    segmentation, _ = read_seg(readerclass(), label_file)
    own_labels = sorted({int(value) for value in segmentation.ravel()[segmentation.ravel() % 1 == 0]})
    found = find_case_problems(image_files, label_file, expected_num_channels, own_labels, readerclass)
    for problem in found.problems:
        logger.error(problem)
    for difference in found.placement:
        logger.warning(difference)
    return not found.problems


def verify_dataset_integrity(folder: str, num_processes: int = 8, *, allow_geometry_mismatch: bool = False) -> None:
    """Checks a raw dataset and reports every problem found.

    Checks the keys of dataset.json, case names, number of cases and presence of all files; and per case: shape,
    spacing, origin and direction of image and label, number of channels, NaN and infinite voxels, and labels.
    Warns of constant images, images of equal content, labels without foreground, and label files without an image.
    Equal images are an error if a splits_final.json in the folder separates them.

    Args:
        folder: the raw dataset, with dataset.json, imagesTr and labelsTr (or a `dataset` section in dataset.json).
        num_processes: upper limit for worker processes.
        allow_geometry_mismatch: only warn about different origins and directions of image and label.

    Raises:
        DataError: problems were found; the log has one line per problem.
    """
    from nnunetv2.imageio.reader_writer_registry import reader_of_training_cases
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    allow_geometry_mismatch = allow_geometry_mismatch or mismatch_is_allowed()
    dataset_json = _checked_dataset_json(folder)
    dataset = get_filenames_of_train_images_and_targets(folder, dataset_json)
    _check_files(folder, dataset_json, dataset)
    expected_labels = _expected_labels(dataset_json)
    reader_class = reader_of_training_cases(dataset_json, dataset)
    num_channels = len(channel_names(dataset_json))
    jobs = [(c["images"], c["label"], num_channels, expected_labels, reader_class) for c in dataset.values()]
    faulty, samples = [], {}
    files = [image for case in dataset.values() for image in case["images"]]
    problems = map_cases(find_case_problems, jobs, num_processes, files=files)
    for identifier, found in zip(dataset, problems, strict=True):
        faulty += _reported(identifier, found, allow_geometry_mismatch)
        if found.sample is not None:
            samples[identifier] = found.sample
    duplicates = find_duplicates(samples, dataset, reader_class, num_processes)
    for note in notes_on_duplicates(duplicates) + notes_on_files(folder, dataset_json, dataset):
        logger.warning(note)
    for leak in _separated_duplicates(folder, duplicates):
        logger.error(leak)
        faulty.append(leak)
    if faulty:
        hint = "" if allow_geometry_mismatch else _geometry_hint(faulty)
        raise DataError(
            f"{counted(len(faulty), 'problem')} in the {counted(len(dataset), 'training case')} of {folder}, each "
            f"logged above; the first: {faulty[0]}{hint}"
        )
    name = os.path.basename(os.path.normpath(folder))
    logger.info("%s: no problem in %s", name, counted(len(dataset), "training case"))


def _checked_dataset_json(folder: str) -> dict[str, Any]:
    name = os.path.basename(os.path.normpath(folder))
    if not re.fullmatch(r"Dataset\d{3}_.+", name):
        logger.warning("The folder %s is not named like Dataset004_Hippocampus; commands will not find it by id", name)
    dataset_json_file = os.path.join(folder, "dataset.json")
    if not os.path.isfile(dataset_json_file):
        raise DataError(f"There is no dataset.json in {folder}{_hint_on_pictures(folder)}")
    dataset_json = read_dataset_json(dataset_json_file)
    subfolders = () if "dataset" in dataset_json else ("imagesTr", "labelsTr")
    for subfolder in subfolders:
        if not os.path.isdir(os.path.join(folder, subfolder)):
            raise DataError(f"There is no folder {subfolder} in {folder}{_hint_on_pictures(folder)}")
    return dataset_json


def _check_files(folder: str, dataset_json: dict[str, Any], dataset: dict[str, dict[str, Any]]) -> None:
    for identifier in dataset:
        check_case_identifier(identifier)
    if len(dataset) != dataset_json["numTraining"]:
        raise DataError(
            f"numTraining in dataset.json is {dataset_json['numTraining']}, but {len(dataset)} training cases "
            f"({dataset_json['file_ending']}) were found in {folder}: {', '.join(list(dataset)[:5]) or 'none'}"
            f"{_files_with_other_endings(folder, dataset_json)}"
        )
    if not dataset:
        raise DataError(f"There is no training case in {folder}")
    files = [file for case in dataset.values() for file in (*case["images"], case["label"])]
    missing = [str(file) for file in files if not os.path.isfile(file)]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(files)} files are missing: {', '.join(missing[:10])}{_nearest_files(missing[0])}"
        )
    without_image = [identifier for identifier, case in dataset.items() if not case["images"]]
    if without_image:
        raise DataError(f"Cases without an image: {', '.join(without_image[:10])}")


def _hint_on_pictures(folder: str) -> str:
    """Names the command that imports pictures, if there are some in the folder or in folders inside it."""
    folders = [folder, *(entry.path for entry in os.scandir(folder) if entry.is_dir())]
    if not any(is_picture(path) for each in folders for path in visible_files(each)):
        return ""
    return (
        f"; {IMPORT_COMMAND} -d NUMBER -n NAME -i PICTURES -m MASKS makes a dataset of pictures and masks as they are"
    )


def _files_with_other_endings(folder: str, dataset_json: dict[str, Any]) -> str:
    """Counts the files of imagesTr that do not count, because they have another ending."""
    ending = dataset_json["file_ending"]
    files = [path for path in visible_files(os.path.join(folder, "imagesTr")) if not path.name.endswith(ending)]
    if not files:
        return ""
    endings = ", ".join(sorted({path.suffix for path in files}))
    cure = f"; {IMPORT_COMMAND} imports such pictures" if all(map(is_picture, files)) else ""
    return (
        f"; imagesTr has {counted(len(files), 'file')} with another ending ({endings}), such as {files[0].name}{cure}"
    )


def _nearest_files(missing: str) -> str:
    """Names the files whose names are most like that of a missing one."""
    folder, name = os.path.split(missing)
    there = [path.name for path in visible_files(folder)]
    nearest = difflib.get_close_matches(name, there, n=2, cutoff=0.5)
    nearest += [each for each in there if each.startswith(name.split(".")[0]) and each not in nearest][:1]
    if not nearest:
        return ""
    cure = f"; {IMPORT_COMMAND} pairs such names and imports the files" if any(map(is_picture, nearest)) else ""
    return f" ({', '.join(nearest)} is there{cure})"


def _expected_labels(dataset_json: dict[str, Any]) -> list[int]:
    """Returns all allowed labels including the ignore label; they must be 0, 1, 2, ... without gaps."""
    labels = declared_labels(dataset_json)
    if labels != list(range(len(labels))):
        raise DataError(f"The labels in dataset.json are {labels}; they must be 0, 1, 2, ... without gaps, ignore last")
    return labels


def _separated_duplicates(folder: str, duplicates: list[list[str]]) -> list[str]:
    path = Path(folder, SPLITS_FILE)
    if not duplicates or not path.is_file():
        return []
    groups = groups_of([case for cases in duplicates for case in cases], None, duplicates)
    return [
        f"fold {fold} of {path} trains on {training} and validates on {validation}, which have equal images"
        for fold, training, validation in separated_groups(read_splits(path), groups)
    ]


def _reported(identifier: str, found: CaseFindings, allow_geometry_mismatch: bool) -> list[str]:
    """Logs the findings of a case and returns those that make it unusable."""
    fatal = found.problems if allow_geometry_mismatch else found.problems + found.placement
    for problem in fatal:
        logger.error("%s: %s", identifier, problem)
    for note in found.notes + (found.placement if allow_geometry_mismatch else []):
        logger.warning("%s: %s", identifier, note)
    return fatal


def _geometry_hint(problems: list[str]) -> str:
    if all(problem.startswith(("origin ", "direction ")) for problem in problems):
        return "; if images and labels do lie on one another, allow it with --allow_geometry_mismatch"
    return ""


class CaseFindings(NamedTuple):
    """Findings in one case, each one line with the file names."""

    problems: list[str]
    """what makes the case unusable"""
    placement: list[str] = []  # noqa: RUF012 - never changed
    """differences in origin and direction between image and label"""
    notes: list[str] = []  # noqa: RUF012
    """what may be intended"""
    sample: str | None = None
    """see `CaseContent`; None if the images cannot be read"""


def find_case_problems(
    image_files: Sequence[str],
    label_file: str,
    expected_num_channels: int,
    expected_labels: Sequence[int],
    reader_class: type[BaseReaderWriter],
) -> CaseFindings:
    """Reads a case once and checks it."""
    reader = reader_class()
    try:
        images, image_properties = read_images(reader, image_files)
        segmentation, label_properties = read_seg(reader, label_file)
    except DataError as err:  # the message names the file
        return CaseFindings([str(err)])
    problems = grid_problems(images, image_properties, segmentation, label_properties)
    if len(images) != expected_num_channels:
        cure = ""
        if (
            len(images) in _PICTURE_CHANNELS
            and expected_num_channels in _PICTURE_CHANNELS
            and is_picture(image_files[0])
        ):
            cure = f" ({IMPORT_COMMAND} gives all pictures the same channels)"
        problems.append(f"{len(images)} channels instead of {expected_num_channels}{cure}")
    problems = [f"{problem}: images {', '.join(image_files)}, label {label_file}" for problem in problems]
    problems += nonfinite_problems(image_files, images, label_file)
    problems += label_problems(segmentation, expected_labels, label_file)
    placement = [
        f"{difference}: images {', '.join(image_files)}, label {label_file}"
        for difference in placement_differences(image_properties, label_properties)
    ]
    content = content_of(images, segmentation)
    return CaseFindings(problems, placement, notes_on_case(content, image_files, label_file), content.sample)


def grid_problems(
    images: np.ndarray, image_properties: dict[str, Any], segmentation: np.ndarray, label_properties: dict[str, Any]
) -> list[str]:
    """Compares shape and spacing of an image (C, X, Y, Z) and its label (1, X, Y, Z)."""
    problems = []
    if images.shape[1:] != segmentation.shape[1:]:
        problems.append(f"shapes differ, {images.shape[1:]} against {segmentation.shape[1:]} voxels")
    if not spacings_agree(image_properties, label_properties):
        problems.append(
            f"spacings differ, {list(image_properties['spacing'])} against {list(label_properties['spacing'])} mm"
        )
    return problems


def nonfinite_problems(image_files: Sequence[str], images: np.ndarray, label_file: str) -> list[str]:
    """Counts NaN and infinite voxels of a case.

    NIfTI files are checked as stored, because SimpleITK silently replaces such voxels by 0.
    """
    problems = []
    for file in (*image_files, label_file):
        count = count_nonfinite_voxels(file)
        if count:
            problems.append(f"{count} voxels are NaN or infinite; replace them by a value that makes sense: {file}")
    in_array = images.size - np.count_nonzero(np.isfinite(images))
    if in_array and not problems:
        problems.append(f"{in_array} voxels are NaN or infinite: {', '.join(image_files)}")
    return problems
