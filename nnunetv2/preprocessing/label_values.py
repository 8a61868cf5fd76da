"""Checks that label maps hold only the labels of dataset.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnunetv2.imageio.pictures import IMPORT_COMMAND, is_picture
from nnunetv2.utilities.label_handling.label_declaration import members

_MAX_LISTED_VALUES = 5
_WHITE = 255


class LabelRange(NamedTuple):
    """What three passes over a label map tell; finding its distinct values would take far longer."""

    lowest: float
    highest: float
    are_whole: bool

    def fits(self, expected: Sequence[int]) -> bool:
        """False if some value is surely none of the expected labels; NaN is none."""
        return self.are_whole and self.lowest >= min(expected) and self.highest <= max(expected)


def range_of(segmentation: np.ndarray) -> LabelRange:
    are_whole = np.issubdtype(segmentation.dtype, np.integer) or bool((np.rint(segmentation) == segmentation).all())
    return LabelRange(float(segmentation.min()), float(segmentation.max()), are_whole)


def declared_labels(dataset_json: Mapping[str, Any]) -> list[int]:
    """Returns the integers of all labels of dataset.json, including the ignore label, in ascending order."""
    return sorted({label for entry in dataset_json["labels"].values() for label in members(entry)})


def label_problems(segmentation: np.ndarray, expected_labels: Sequence[int], label_file: str) -> list[str]:
    """Lists unexpected values with their number of voxels, including NaN, fractions and negative values."""
    has_gaps = len(expected_labels) <= max(expected_labels) - min(expected_labels)
    if not has_gaps and range_of(segmentation).fits(expected_labels):
        return []
    values, counts = np.unique(segmentation, return_counts=True)
    unexpected = ~np.isin(values, expected_labels)
    if not unexpected.any():
        return []
    listed = [
        f"{value:g} ({count} voxels)"
        for value, count in list(zip(values[unexpected], counts[unexpected], strict=True))[:_MAX_LISTED_VALUES]
    ]
    more = ", ..." if unexpected.sum() > _MAX_LISTED_VALUES else ""
    hint = "" if range_of(values[unexpected]).are_whole else "; labels must be whole numbers"
    return [
        f"unexpected labels {', '.join(listed)}{more}; dataset.json names {list(expected_labels)}{hint}: {label_file}; "
        f"relabel these voxels, or add the label to dataset.json{_hint_on_masks(values, label_file)}"
    ]


def _hint_on_masks(values: np.ndarray, label_file: str) -> str:
    """Names the command that imports masks, if the values are those of a picture's black and white."""
    if not is_picture(label_file) or values.max() != _WHITE:
        return ""
    return f"; {IMPORT_COMMAND} makes labels of masks of 0 and {_WHITE}, or with --labels NAME=VALUE of others"
