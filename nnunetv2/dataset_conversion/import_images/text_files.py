"""Read the small text files of exports: tables and lists."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

from nnunetv2.errors import DataError

_LARGEST = 2**26  # bytes; 65,000 polygons of 60 corners


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without byte order mark.

    Raises:
        DataError: it is larger than 64 MiB or in another encoding.
        OSError: it does not exist.
    """
    if path.stat().st_size > _LARGEST:
        raise DataError(f"{path} has {path.stat().st_size} bytes; such a file has at most {_LARGEST}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError(f"{path} is not in UTF-8 ({err.reason} at byte {err.start}); save it in this encoding") from err


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Reads a table with commas; returns its columns and rows. Cells that are missing are empty.

    Raises:
        DataError: as `read_text`, or it is no such table.
    """
    try:
        reader = csv.DictReader(StringIO(read_text(path), newline=""), restval="")
        rows = list(reader)
    except csv.Error as err:
        raise DataError(f"{path} is no table with commas ({err})") from err
    return list(reader.fieldnames or []), rows
