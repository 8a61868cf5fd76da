"""What is wrong with one training case: files, grids, values, labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2.evaluation.geometry import placement_differences, spacings_agree

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

NIFTI_ENDINGS = (".nii", ".nii.gz")
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
    except Exception as err:  # whatever a format library raises, the user needs to know which file it was
        return [f"cannot be read ({type(err).__name__}: {err}): {', '.join(image_files)}, {label_file}"], [], []
    problems = grid_problems(images, image_properties, segmentation, label_properties)
    if len(images) != expected_num_channels:
        problems.append(f"{len(images)} channels instead of {expected_num_channels}")
    problems = [f"{problem}: images {', '.join(image_files)}, label {label_file}" for problem in problems]
    for image_file in image_files:
        problems += non_finite_problems(
            image_file, None if _is_nifti(image_file) else reader.read_images([image_file])[0]
        )
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


def non_finite_problems(image_file: str, image: np.ndarray | None) -> list[str]:
    """Counts NaN and infinite voxels.

    Args:
        image_file: of one channel.
        image: its voxels; None for NIfTI files, whose stored values are read here, because SimpleITK replaces what is
            not finite by 0 without a word.
    """
    if image is None:
        import nibabel

        stored = nibabel.load(image_file)
        if stored.get_data_dtype().kind not in "fc":
            return []
        image = np.asanyarray(stored.dataobj)
    num_nan, num_infinite = int(np.isnan(image).sum()), int(np.isinf(image).sum())
    if num_nan + num_infinite == 0:
        return []
    return [f"{num_nan} NaN and {num_infinite} infinite voxels; replace them by a value that makes sense: {image_file}"]


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


def _is_nifti(file: str) -> bool:
    return file.lower().endswith(NIFTI_ENDINGS)
