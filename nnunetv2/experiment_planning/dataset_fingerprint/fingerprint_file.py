"""Read dataset_fingerprint.json and check its arrays before plans are derived from them."""

from __future__ import annotations

import os
from typing import Any

from dinov3.utils.json_files import read_json
from nnunetv2.errors import DataError
from nnunetv2.utilities.file_names import shortened
from nnunetv2.utilities.plans_handling.plans_schema import is_number

READER = "image_reader"
"""key of the reader, in a fingerprint that a user's reader made"""

_STATISTICS = ("mean", "std", "median", "min", "max", "percentile_00_5", "percentile_99_5")
_CURE = "run nnUNetv2_extract_fingerprint again"


def read_fingerprint(path: str | os.PathLike) -> dict[str, Any]:
    """Read and check a fingerprint.

    Raises:
        DataError: names the entry, its value and the right form.
    """
    content = read_json(path)
    where = os.fspath(path)
    if not isinstance(content, dict):
        raise DataError(f"{where} holds {shortened(content)}; it must be an object, {_CURE}")
    for key, form in (("spacings", "mm"), ("shapes_after_crop", "voxels")):
        if not _is_table(content.get(key)):
            raise DataError(
                f'{where}: "{key}" is {shortened(content.get(key))}; it must be a list with three numbers above 0 '
                f"({form}) for each case, {_CURE}"
            )
    numbers = [len(content[key]) for key in ("spacings", "shapes_after_crop")]
    if numbers[0] != numbers[1]:
        raise DataError(f"{where} has {numbers[0]} spacings and {numbers[1]} shapes_after_crop; {_CURE}")
    relative_size = content.get("median_relative_size_after_cropping")
    if not (is_number(relative_size) and 0 < relative_size <= 1):
        raise DataError(
            f'{where}: "median_relative_size_after_cropping" is {shortened(relative_size)}; it must be a number from 0 '
            f"to 1, {_CURE}"
        )
    intensities = content.get("foreground_intensity_properties_per_channel")
    if not isinstance(intensities, dict) or not all(map(_are_statistics, intensities.values())):
        raise DataError(
            f'{where}: "foreground_intensity_properties_per_channel" is {shortened(intensities)}; it must have the '
            f"numbers {', '.join(_STATISTICS)} for each channel, {_CURE}"
        )
    return content


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_row, value))


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(is_number(each) and each > 0 for each in value)


def _are_statistics(value: Any) -> bool:
    return isinstance(value, dict) and all(is_number(value.get(name)) for name in _STATISTICS)
