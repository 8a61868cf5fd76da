"""What is wrong with one training case: files, grids, values, labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2.errors import DataError
from nnunetv2.imageio.geometry import placement_differences, spacings_agree
from nnunetv2.imageio.nonfinite_voxels import count_nonfinite_voxels

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

_MAX_LISTED_VALUES = 5


def find_case_problems(
    image_files: Sequence[str],
    label_file: str,
    expected_num_channels: int,
    expected_labels: Sequence[int],
    reader_class: type[BaseReaderWriter],
) -> tuple[list[str], list[str], list[str]]:
    """Reads a case once and checks it.

    Returns:
        Problems that make the case unusable, differences in origin and direction between image and label, and notes
        that may be intended. Each is one line that names its files.
    """
    reader = reader_class()
    try:
        images, image_properties = reader.read_images(image_files)
        segmentation, label_properties = reader.read_seg(label_file)
    except DataError as err:  # the message names the file
        return [str(err)], [], []
    problems = grid_problems(images, image_properties, segmentation, label_properties)
    if len(images) != expected_num_channels:
        problems.append(f"{len(images)} channels instead of {expected_num_channels}")
    problems = [f"{problem}: images {', '.join(image_files)}, label {label_file}" for problem in problems]
    problems += nonfinite_problems(image_files, images, label_file)
    problems += label_problems(segmentation, expected_labels, label_file)
    placement = [
        f"{difference}: images {', '.join(image_files)}, label {label_file}"
        for difference in placement_differences(image_properties, label_properties)
    ]
    notes = [] if (segmentation != 0).any() else [f"no voxel but background (label 0): {label_file}"]
    return problems, placement, notes


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

    NIfTI files are counted as stored, because SimpleITK replaces such voxels by 0 without a word.
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


def label_problems(segmentation: np.ndarray, expected_labels: Sequence[int], label_file: str) -> list[str]:
    """Lists values that are not expected, with their number of voxels; NaN, fractions and negatives among them."""
    values, counts = np.unique(segmentation, return_counts=True)
    unexpected = ~np.isin(values, expected_labels)
    if not unexpected.any():
        return []
    listed = [
        f"{value:g} ({count} voxels)"
        for value, count in list(zip(values[unexpected], counts[unexpected], strict=True))[:_MAX_LISTED_VALUES]
    ]
    more = ", ..." if unexpected.sum() > _MAX_LISTED_VALUES else ""
    hint = "; labels must be whole numbers" if (values[unexpected] % 1 != 0).any() else ""
    return [
        f"unexpected labels {', '.join(listed)}{more}; dataset.json names {list(expected_labels)}{hint}: {label_file}"
    ]
