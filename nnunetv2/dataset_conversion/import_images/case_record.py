"""What is known of an imported case: the rows of `import.csv`, on which checks, splits and later imports rely."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from nnunetv2.dataset_conversion.import_images.text_files import read_table
from nnunetv2.errors import DataError

TABLE = "import.csv"

_COLUMNS = (
    "case", "part", "image", "mask", "fov", "group", "image_sha256", "mask_sha256", "pixels_sha256", "height", "width",
    "crop_y", "crop_x", "crop_height", "crop_width", "snapped", "overlapping",
)  # fmt: skip
_NUMBERS = ("height", "width", "crop_y", "crop_x", "crop_height", "crop_width", "snapped", "overlapping")
_PIXELS = "pixels_"


@dataclass(frozen=True)
class CaseRecord:
    """One imported picture."""

    case: str
    """new name"""
    part: str
    """train, val or test"""
    image: str
    """old name, relative to the folder that was imported; also `mask` and `fov`"""
    mask: str
    fov: str
    group: str
    image_sha256: str
    """of the file; empty if there is none, as for `mask_sha256`"""
    mask_sha256: str
    pixels_sha256: str
    """of the pixels and their shape, the same for one picture in two formats"""
    height: int
    """of the whole picture, in pixels"""
    width: int
    crop_y: int
    """first row of the written part; the whole picture unless `--crop_fov`"""
    crop_x: int
    crop_height: int
    crop_width: int
    snapped: int
    """pixels of the mask that do not have the exact colour or value of their class"""
    overlapping: int
    """pixels that several classes claim"""
    pixels: dict[str, int] = field(default_factory=dict)
    """pixels of each class in the written part; empty without labels"""


def write_records(records: Sequence[CaseRecord], path: Path) -> None:
    """Writes one row per case, with a column per class."""
    classes = list(dict.fromkeys(name for record in records for name in record.pixels))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"{_PIXELS}{name}" for name in classes)])
    for record in records:
        writer.writerow(
            [*(getattr(record, column) for column in _COLUMNS), *(record.pixels.get(name, "") for name in classes)]
        )
    path.write_text(text.getvalue(), encoding="utf-8")


def read_records(path: Path) -> list[CaseRecord]:
    """Reads what `write_records` wrote.

    Raises:
        DataError: the file is missing or has another form.
    """
    if not path.is_file():
        raise DataError(f"There is no {path}, so this dataset was not made by nnUNetv2_import_images")
    _, rows = read_table(path)
    try:
        return [_record(row) for row in rows]
    except (KeyError, ValueError, TypeError) as err:
        raise DataError(f"{path} is not as nnUNetv2_import_images wrote it ({err}); import the pictures again") from err


def _record(row: dict[str, str]) -> CaseRecord:
    values = {column: int(row[column]) if column in _NUMBERS else row[column] for column in _COLUMNS}
    pixels = {key.removeprefix(_PIXELS): int(value) for key, value in row.items() if key not in _COLUMNS and value}
    return CaseRecord(**values, pixels=pixels)
