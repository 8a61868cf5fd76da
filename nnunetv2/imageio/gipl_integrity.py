"""Detect truncated GIPL files from their header; SimpleITK fills missing voxels with zeros."""

from __future__ import annotations

import math
import os
import struct

from nnunetv2.errors import DataError

_HEADER_BYTES = 256
_BYTES_PER_VOXEL = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}  # by data type code


def check_gipl(path: str | os.PathLike) -> None:
    """Check that the file is at least as long as its header requires.

    Raises:
        DataError: it is shorter.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(_HEADER_BYTES)
    if len(start) < _HEADER_BYTES:
        raise DataError(f"{path} is cut off: it has {len(start)} bytes, which is less than a GIPL header")
    *shape, data_type = struct.unpack_from(">5H", start)
    needed = _HEADER_BYTES + math.prod(max(length, 1) for length in shape) * _BYTES_PER_VOXEL.get(data_type, 0)
    present = os.path.getsize(path)
    if present < needed:
        raise DataError(f"{path} is cut off: its header announces {needed} bytes, there are {present}")
