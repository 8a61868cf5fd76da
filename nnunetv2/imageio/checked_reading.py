"""Read files by any reader, and check what it returns: mistakes of a user's reader would surface far from it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunetv2.errors import UsageError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter


def read_images(reader: BaseReaderWriter, files: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads the channels of a case: array (C, Z, Y, X), and the properties.

    Raises:
        DataError: a file cannot be read.
        UsageError: the reader returned something else.
    """
    files = [str(file) for file in files]
    return _checked(reader.read_images(files), reader, "read_images", files)


def read_seg(reader: BaseReaderWriter, file: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads a label map: array (1, Z, Y, X), and the properties; raises like `read_images`."""
    array, properties = _checked(reader.read_seg(str(file)), reader, "read_seg", [str(file)])
    if len(array) != 1:
        raise _wrong(reader, "read_seg", [str(file)], f"an array of shape {array.shape}", "one channel: (1, z, y, x)")
    return array, properties


def _checked(returned: Any, reader: BaseReaderWriter, method: str, files: list[str]) -> tuple[np.ndarray, dict]:
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise _wrong(reader, method, files, f"a {type(returned).__name__}", "an array and its properties")
    array, properties = returned
    if not (isinstance(array, np.ndarray) and array.dtype.kind in "fiub"):
        kind = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        raise _wrong(reader, method, files, kind, "an array of numbers")
    if array.ndim != 4 or 0 in array.shape:
        accepted = "four axes, (channels, z, y, x); z has length 1 in 2-D images"
        raise _wrong(reader, method, files, f"an array of shape {array.shape}", accepted)
    spacing = properties.get("spacing") if isinstance(properties, dict) else None
    if not _is_spacing(spacing):
        given = f"the spacing {spacing!r}" if isinstance(properties, dict) else f"properties {properties!r}"
        accepted = 'properties {"spacing": (z, y, x), ...}, three lengths above 0 in mm'
        raise _wrong(reader, method, files, given, accepted)
    return array, properties


def _is_spacing(value: Any) -> bool:
    try:
        lengths = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return False
    return lengths.shape == (3,) and bool((np.isfinite(lengths) & (lengths > 0)).all())


def _wrong(reader: BaseReaderWriter, method: str, files: list[str], returned: str, accepted: str) -> UsageError:
    kind = type(reader)
    return UsageError(
        f"{inspect.getsourcefile(kind)}: {kind.__name__}.{method} returned {returned} for {', '.join(files)}; it must "
        f"return {accepted}"
    )
