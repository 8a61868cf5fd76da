"""Detect truncated, damaged, oversized and unusual NIfTI files from their header, without reading voxels.

SimpleITK silently fills the missing end of a truncated file with zeros.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass, field, replace

import numpy as np

from nnunetv2.errors import DataError
from nnunetv2.imageio.compressed_streams import GZIP_MAGIC, read_gzip_trailer, require_whole_gzip
from nnunetv2.imageio.size_limits import require_readable_size

# For NIfTI-1 and NIfTI-2, by header size in bytes: position and struct format of the shape, the data type, the offset
# of the first voxel, the spacing, the codes of both transforms and the rows of the affine one (sform).
# Source: nifti1.h and nifti2.h of https://nifti.nimh.nih.gov.
_LAYOUTS = {
    348: ((40, "8h"), (70, "h"), (108, "f"), (76, "8f"), (252, "2h"), (280, "12f")),
    540: ((16, "8q"), (12, "h"), (168, "q"), (104, "8d"), (344, "2i"), (400, "12d")),
}

# Bits per voxel by data type code. The header's own entry for this is wrong in some files, and readers ignore it.
_BITS = {1: 1, 2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
_BITS |= {1536: 128, 1792: 128, 2048: 256, 2304: 32}

_MAX_AXES = 7
_SHEAR_TOLERANCE = 1e-4  # cosine of the angle between two axes


@dataclass(frozen=True)
class NiftiHeader:
    """Header fields that determine the file size and the grid."""

    shape: tuple[int, ...]
    bits_per_voxel: int
    offset: int  # bytes before the first voxel
    spacing: tuple[float, ...]
    """mm per voxel, for each axis of `shape`"""
    affine_axes: tuple[tuple[float, ...], ...] | None
    """the 3 x 3 part of the affine, row by row; None if the header describes a rotation instead, or nothing"""
    is_version_2: bool
    start: bytes = field(repr=False)
    """the first bytes of the unpacked file, which include the header"""
    size: int = 0
    """bytes of the file as it is on disk"""
    gzip_end: tuple[int, int] | None = None
    """checksum and length at the end of a compressed file"""

    @property
    def voxel_bytes(self) -> int:
        return math.prod(self.shape) * self.bits_per_voxel // 8

    @property
    def file_bytes(self) -> int:
        return self.offset + self.voxel_bytes

    @property
    def is_sheared(self) -> bool:
        """True if the axes are not perpendicular, which SimpleITK does not read."""
        if self.affine_axes is None:
            return False
        axes = np.array(self.affine_axes)
        lengths = np.linalg.norm(axes, axis=0)
        if not (np.isfinite(axes).all() and lengths.all()):
            return True
        return bool(np.abs(np.triu((axes / lengths).T @ (axes / lengths), 1)).max() > _SHEAR_TOLERANCE)


def is_nifti(path: str | os.PathLike) -> bool:
    return os.fspath(path).lower().endswith((".nii", ".nii.gz"))


def check_nifti(path: str | os.PathLike, full: bool = False, max_axes: int = 3) -> NiftiHeader:
    """Check that the file is a complete NIfTI image with at most `max_axes` axes longer than 1; return its header.

    Args:
        full: also unpack a `.nii.gz` completely, which verifies all bytes (CRC-32) and takes as long as reading.
        max_axes: 3, or more for files that are to be split.

    Raises:
        DataError: it is not, or it is too large; the message names the file.
    """
    path = os.fspath(path)
    header = read_nifti_header(path)
    if any(size > 1 for size in header.shape[max_axes:]):
        raise DataError(
            f"{path} has {len(header.shape)} axes of sizes {list(header.shape)}; nnU-Net reads images of at most three "
            f"axes: write each volume to its own file (CASE_0000, CASE_0001, ...)"
        )
    packed = header.size if header.gzip_end else header.voxel_bytes
    require_readable_size(path, header.shape, unpacked=header.voxel_bytes, packed=packed)
    _require_positive_spacing(path, header)
    if header.gzip_end:
        # The size stored at the end of a gzip file is enough in the usual case of a single member.
        if full or header.gzip_end[1] != header.file_bytes % 2**32:
            require_whole_gzip(path, header.file_bytes)
    elif header.size < header.file_bytes:
        raise DataError(
            f"{path} is cut off: its header announces {header.file_bytes} bytes (shape {list(header.shape)}), "
            f"there are {header.size}; copy or convert it again"
        )
    return header


def require_intact_nifti(path: str | os.PathLike, header: NiftiHeader, voxels: np.ndarray) -> None:
    """Compare what a library read from a `.nii.gz` with the CRC-32 that the file stores.

    Libraries stop before the end of the file, where the checksum is. Computing it from the array costs less than
    unpacking again, which is done only if the checksums differ, as they also do for scaled or byte-swapped voxels.

    Args:
        header: from `check_nifti`.
        voxels: in the order of the file.

    Raises:
        DataError: the file is damaged.
    """
    if not header.gzip_end:
        return
    checksum = zlib.crc32(np.ascontiguousarray(voxels), zlib.crc32(header.start[: header.offset]))
    if checksum != header.gzip_end[0]:
        require_whole_gzip(os.fspath(path), header.file_bytes)


def read_nifti_header(path: str | os.PathLike) -> NiftiHeader:
    """Read the header of a `.nii` or `.nii.gz` file."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            start = (gzip.GzipFile(fileobj=file) if compressed else file).read(max(_LAYOUTS))
            header = _parse_header(start, path)
            end = read_gzip_trailer(file) if compressed else None
            return replace(header, size=file.seek(0, os.SEEK_END), gzip_end=end)
    except FileNotFoundError as err:
        raise DataError(f"There is no image file {path}") from err
    except (OSError, EOFError, zlib.error, struct.error) as err:
        raise DataError(f"{path} is not a readable NIfTI file, it may be damaged or truncated: {err}") from err


def _parse_header(start: bytes, path: str) -> NiftiHeader:
    for byte_order in "<>":
        (size,) = struct.unpack_from(f"{byte_order}i", start)
        if size not in _LAYOUTS:
            continue
        (num_axes, *lengths), (data_type,), (offset,), (_, *spacing), (rotation, affine), rows = (
            struct.unpack_from(byte_order + code, start, position) for position, code in _LAYOUTS[size]
        )
        shape = (*lengths[: min(num_axes, 3)], *(max(length, 1) for length in lengths[3:num_axes]))
        if not 1 <= num_axes <= _MAX_AXES or min(shape) < 1 or data_type not in _BITS or not 0 <= offset < 2**40:
            raise DataError(f"{path} has an impossible NIfTI header: axes {num_axes, *lengths}, data type {data_type}")
        axes = (rows[0:3], rows[4:7], rows[8:11]) if affine > 0 and rotation <= 0 else None
        return NiftiHeader(shape, _BITS[data_type], int(offset), tuple(spacing[: len(shape)]), axes, size > 348, start)
    raise DataError(f"{path} is not a NIfTI file: it does not start with a NIfTI header")


def _require_positive_spacing(path: str, header: NiftiHeader) -> None:
    """Libraries replace 0 by 1 mm without an error. Axes of length 1 often have no spacing, and need none."""
    spatial = list(zip(header.shape[:3], header.spacing[:3], strict=True))
    if not all(length == 1 or 0 < spacing < math.inf for length, spacing in spatial):
        raise DataError(
            f"{path} has the voxel spacing {[round(spacing, 6) for _, spacing in spatial]} mm in its header; each must "
            f"be above 0: write the true spacing into the header"
        )
