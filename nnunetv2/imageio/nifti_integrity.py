"""Detect truncated NIfTI files from their header, without reading voxels.

SimpleITK silently fills the missing end of a truncated file with zeros.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass

from nnunetv2.errors import DataError

_CHUNK = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"

# For NIfTI-1 and NIfTI-2, by header size in bytes: position and struct format of the shape, the data type, and the
# offset of the first voxel. Source: nifti1.h and nifti2.h of https://nifti.nimh.nih.gov.
_LAYOUTS = {348: ((40, "8h"), (70, "h"), (108, "f")), 540: ((16, "8q"), (12, "h"), (168, "q"))}

# Bits per voxel by data type code. The header's own entry for this is wrong in some files, and readers ignore it.
_BITS = {1: 1, 2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
_BITS |= {1536: 128, 1792: 128, 2048: 256, 2304: 32}


@dataclass(frozen=True)
class NiftiHeader:
    """Header fields that determine the file size."""

    shape: tuple[int, ...]
    bits_per_voxel: int
    offset: int  # bytes before the first voxel

    @property
    def file_bytes(self) -> int:
        return self.offset + math.prod(self.shape) * self.bits_per_voxel // 8


def is_nifti(path: str | os.PathLike) -> bool:
    return os.fspath(path).lower().endswith((".nii", ".nii.gz"))


def check_nifti(path: str | os.PathLike, full: bool = False, max_axes: int = 3) -> None:
    """Check that the file is a complete NIfTI image with at most `max_axes` axes longer than 1.

    Args:
        full: also unpack a `.nii.gz` completely, which verifies all bytes (CRC-32) and takes as long as reading.
        max_axes: 3, or more for files that are to be split.

    Raises:
        DataError: it is not; the message names the file.
    """
    path = os.fspath(path)
    compressed = _is_gzip(path)
    header = read_nifti_header(path)
    if any(size > 1 for size in header.shape[max_axes:]):
        raise DataError(
            f"{path} has {len(header.shape)} axes of sizes {list(header.shape)}; nnU-Net reads images of at most three "
            f"axes: write each volume to its own file (CASE_0000, CASE_0001, ...)"
        )
    # The size stored at the end of a gzip file is enough in the usual case of a single member.
    if compressed and not full and _gzip_says(path) == header.file_bytes % 2**32:
        return
    present = _unpacked_bytes(path, header.file_bytes) if compressed else os.path.getsize(path)
    if present < header.file_bytes:
        raise DataError(
            f"{path} is cut off: its header announces {header.file_bytes} bytes (shape {list(header.shape)}), "
            f"there are {present}; copy or convert it again"
        )


def read_nifti_header(path: str | os.PathLike) -> NiftiHeader:
    """Read the header of a `.nii` or `.nii.gz` file."""
    path = os.fspath(path)
    try:
        with (gzip.open if _is_gzip(path) else open)(path, "rb") as file:
            return _parse_header(file.read(max(_LAYOUTS)), path)
    except FileNotFoundError as err:
        raise DataError(f"There is no image file {path}") from err
    except (OSError, EOFError, zlib.error, struct.error) as err:
        raise DataError(f"{path} is not a readable NIfTI file, it may be damaged or truncated: {err}") from err


def _is_gzip(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == _GZIP_MAGIC


def _parse_header(start: bytes, path: str) -> NiftiHeader:
    for byte_order in "<>":
        (size,) = struct.unpack_from(f"{byte_order}i", start)
        if size not in _LAYOUTS:
            continue
        (num_axes, *lengths), (data_type,), (offset,) = (
            struct.unpack_from(byte_order + code, start, position) for position, code in _LAYOUTS[size]
        )
        shape = (*lengths[: min(num_axes, 3)], *(max(length, 1) for length in lengths[3:num_axes]))
        if not 1 <= num_axes <= 7 or min(shape) < 1 or data_type not in _BITS or not 0 <= offset < 2**40:
            raise DataError(f"{path} has an impossible NIfTI header: axes {num_axes, *lengths}, data type {data_type}")
        return NiftiHeader(shape, _BITS[data_type], int(offset))
    raise DataError(f"{path} is not a NIfTI file: it does not start with a NIfTI header")


def _gzip_says(path: str) -> int:
    """Size of the last gzip member's content modulo 2^32, from the last four bytes of the file."""
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")


def _unpacked_bytes(path: str, needed: int) -> int:
    """Unpack without keeping the content and count the bytes; stops early if there are far more than needed."""
    total = 0
    try:
        with gzip.open(path, "rb") as file:
            while total <= 2 * needed and (block := file.read(_CHUNK)):
                total += len(block)
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"{path} is damaged or cut off after {total} of {needed} bytes: {err}") from err
    return total
