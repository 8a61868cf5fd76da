"""Detect truncated and oversized GIPL files from their header; SimpleITK fills missing voxels with zeros."""

from __future__ import annotations

import math
import os
import struct

from nnunetv2.errors import DataError
from nnunetv2.imageio.size_limits import require_readable_size

_HEADER_BYTES = 256
_BYTES_PER_VOXEL = {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}  # by data type code


def check_gipl(path: str | os.PathLike) -> None:
    """Check that the file is at least as long as its header requires.

    Raises:
        DataError: it is shorter, or its header is impossible.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(_HEADER_BYTES)
    if len(start) < _HEADER_BYTES:
        raise DataError(f"{path} is cut off: it has {len(start)} bytes, which is less than a GIPL header")
    *shape, data_type = struct.unpack_from(">5H", start)
    if data_type not in _BYTES_PER_VOXEL:
        raise DataError(f"{path} has an impossible GIPL header: data type {data_type}")
    shape = [max(length, 1) for length in shape]
    voxels = math.prod(shape) * _BYTES_PER_VOXEL[data_type]
    require_readable_size(path, shape, unpacked=voxels, packed=voxels)
    present = os.path.getsize(path)
    if present < _HEADER_BYTES + voxels:
        raise DataError(f"{path} is cut off: its header announces {_HEADER_BYTES + voxels} bytes, there are {present}")
