"""Detect truncated, damaged and oversized MetaImage files (.mha; .mhd with its data file) from their header.

SimpleITK prints that it could not unpack damaged voxels, but returns an image all the same.
"""

from __future__ import annotations

import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2.errors import DataError
from nnunetv2.imageio.compressed_streams import FileSection, require_whole_zlib
from nnunetv2.imageio.size_limits import require_readable_size

_MAX_HEADER = 1 << 16
_CHECKSUM_BYTES = 4
_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4}
_BYTES |= {"LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}


@dataclass(frozen=True)
class MetaImageHeader:
    """Header fields that determine where the voxels are and how many."""

    shape: tuple[int, ...]
    """number of channels, then the axes"""
    voxel_bytes: int
    data_file: str
    start: int  # byte of the data file at which the voxels start
    stored_bytes: int | None  # of the compressed voxels; None: to the end of the file
    is_compressed: bool
    is_text: bool


def is_metaimage(path: str | os.PathLike) -> bool:
    return os.fspath(path).lower().endswith((".mha", ".mhd"))


def check_metaimage(path: str | os.PathLike) -> MetaImageHeader:
    """Check that all voxels are there and that their number is sensible; returns the header.

    Raises:
        DataError: the image is damaged, truncated or too large; the message names the file.
    """
    path = os.fspath(path)
    header = read_metaimage_header(path)
    if not os.path.isfile(header.data_file):
        raise DataError(f"There is no {header.data_file}, in which {path} keeps its voxels")
    available = os.path.getsize(header.data_file) - header.start
    packed = min(header.stored_bytes or available, available) if header.is_compressed else header.voxel_bytes
    require_readable_size(path, header.shape, unpacked=header.voxel_bytes, packed=packed)
    if header.is_compressed and header.stored_bytes is None:
        require_whole_zlib(header.data_file, header.voxel_bytes, header.start)
    # Numbers written as text take two bytes each, the last one at least one.
    as_text = 2 * math.prod(header.shape) - 1
    needed = header.stored_bytes if header.is_compressed else as_text if header.is_text else header.voxel_bytes
    if needed is not None and available < needed:
        raise DataError(
            f"{path} is cut off: its header announces {needed} bytes (shape {list(header.shape[1:])}), "
            f"{header.data_file} has {max(available, 0)}; copy or convert it again"
        )
    return header


def require_intact_metaimage(header: MetaImageHeader, voxels: np.ndarray) -> None:
    """Compare what a library read with the Adler-32 that compressed voxels end with.

    Args:
        header: from `check_metaimage`.
        voxels: in the order of the file.

    Raises:
        DataError: the file is damaged.
    """
    if not header.is_compressed:
        return
    end = header.start + header.stored_bytes if header.stored_bytes else os.path.getsize(header.data_file)
    with FileSection(header.data_file, end - _CHECKSUM_BYTES, end) as section:
        stored = int.from_bytes(section.read(_CHECKSUM_BYTES), "big")
    voxels = np.ascontiguousarray(voxels)
    if stored not in (zlib.adler32(voxels), zlib.adler32(voxels.byteswap())):
        require_whole_zlib(header.data_file, header.voxel_bytes, header.start, end)
        raise DataError(
            f"{header.data_file} was not read as it is stored: its header is damaged; copy or convert it again"
        )


def read_metaimage_header(path: str) -> MetaImageHeader:
    """Read the header of a `.mha` or `.mhd` file.

    Raises:
        DataError: it is not one, or lacks an entry.
    """
    with open(path, "rb") as file:
        fields, position = _fields(file.read(_MAX_HEADER), path)
    try:
        shape = (int(fields.get("ElementNumberOfChannels", "1")), *map(int, fields["DimSize"].split()))
        if len(shape) != int(fields["NDims"]) + 1 or min(shape) < 1:
            raise ValueError(f"DimSize is {fields['DimSize']}")
        value_bytes = _BYTES[fields["ElementType"].upper().removeprefix("MET_").removesuffix("_ARRAY")]
        compressed, text = (_is_true(fields.get(key, default)) for key, default in _SWITCHES)
        stored = int(float(fields.get("CompressedDataSize", "0"))) or None
        if stored is not None and stored < _CHECKSUM_BYTES:
            raise ValueError(f"CompressedDataSize is {stored}")
        _require_positive_spacing(fields, path)
        voxel_bytes = math.prod(shape) * value_bytes
        data_file, start = _place_of_voxels(fields, path, position, voxel_bytes)
        return MetaImageHeader(shape, voxel_bytes, data_file, start, stored, compressed, not text)
    except (KeyError, ValueError, OverflowError) as err:
        raise DataError(f"{path} has an impossible MetaImage header: {err}; copy or convert it again") from err


_SWITCHES = (("CompressedData", "False"), ("BinaryData", "True"))


def _fields(start: bytes, path: str) -> tuple[dict[str, str], int]:
    """Entries of the header up to the last, `ElementDataFile`, and the position behind it."""
    fields: dict[str, str] = {}
    position = 0
    for line in start.splitlines(keepends=True):
        position += len(line)
        key, equals, value = line.decode("latin-1").partition("=")
        if not equals:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields, position
    raise DataError(f"{path} is not a MetaImage file, or its header is damaged; copy or convert it again")


def _place_of_voxels(fields: dict[str, str], path: str, position: int, voxel_bytes: int) -> tuple[str, int]:
    name = fields["ElementDataFile"]
    if name.upper().startswith("LIST") or "%" in name:
        raise DataError(f"{path} keeps its voxels in several files; nnU-Net reads one file per channel: convert it")
    data_file = path if name.upper() == "LOCAL" else str(Path(path).parent / name)
    offset = int(fields.get("HeaderSize", "0"))
    if offset == -1 and os.path.isfile(data_file):
        return data_file, max(os.path.getsize(data_file) - voxel_bytes, 0)
    return data_file, max(offset, position if data_file == path else 0)


def _require_positive_spacing(fields: dict[str, str], path: str) -> None:
    for key in ("ElementSpacing", "ElementSize"):
        if key in fields and not all(0 < float(length) < math.inf for length in fields[key].split()):
            raise DataError(
                f"{path} has the voxel spacing {fields[key]} mm in its header; each must be above 0: write the true "
                f"spacing into the header"
            )


def _is_true(text: str) -> bool:
    return text[:1].upper() in ("T", "1")
