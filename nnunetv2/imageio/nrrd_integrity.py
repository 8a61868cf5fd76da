"""Detect truncated, damaged and oversized NRRD files (.nrrd; .nhdr with its data files) from their header."""

from __future__ import annotations

import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2.errors import DataError
from nnunetv2.imageio.compressed_streams import gzip_trailer, require_whole_gzip
from nnunetv2.imageio.size_limits import require_readable_size

_MAX_HEADER = 1 << 16
_BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8}
_BYTES |= {"char": 1, "short": 2, "int": 4, "longlong": 8, "float": 4, "double": 8}
_TEXT = ("ascii", "text", "txt")
_TEXT_BYTES = {"hex": 2}  # per byte of a voxel


@dataclass(frozen=True)
class NrrdHeader:
    """Header fields that determine where the voxels are and how many."""

    shape: tuple[int, ...]
    voxel_bytes: int
    encoding: str
    data_files: tuple[str, ...]
    start: int  # byte of each data file at which its voxels start; -1: they end the file

    @property
    def is_gzip(self) -> bool:
        return self.encoding in ("gzip", "gz")


def is_nrrd(path: str | os.PathLike) -> bool:
    return os.fspath(path).lower().endswith((".nrrd", ".nhdr"))


def check_nrrd(path: str | os.PathLike) -> NrrdHeader:
    """Check that all voxels are there and that their number is sensible; returns the header.

    Raises:
        DataError: the image is damaged, truncated or too large; the message names the file.
    """
    path = os.fspath(path)
    header = read_nrrd_header(path)
    for data_file in header.data_files:
        if not os.path.isfile(data_file):
            raise DataError(f"There is no {data_file}, in which {path} keeps its voxels")
    available = sum(os.path.getsize(data_file) - max(header.start, 0) for data_file in header.data_files)
    is_packed = header.is_gzip or header.encoding in ("bzip2", "bz2")
    packed = available if is_packed else header.voxel_bytes
    require_readable_size(path, header.shape, unpacked=header.voxel_bytes, packed=packed)
    if header.is_gzip:
        _require_whole_streams(header)
    elif not is_packed and available < (needed := _stored_bytes(header)):
        raise DataError(
            f"{path} is cut off: its header announces {needed} bytes (sizes {list(header.shape)}), there are "
            f"{max(available, 0)} in {', '.join(header.data_files)}; copy or convert it again"
        )
    return header


def require_intact_nrrd(header: NrrdHeader, voxels: np.ndarray) -> None:
    """Compare what a library read with the CRC-32 that gzip-encoded voxels end with.

    Args:
        header: from `check_nrrd`.
        voxels: in the order of the file.

    Raises:
        DataError: the file is damaged.
    """
    if not header.is_gzip:
        return
    if (
        len(header.data_files) == 1
        and zlib.crc32(np.ascontiguousarray(voxels)) == gzip_trailer(header.data_files[0])[0]
    ):
        return
    for data_file in header.data_files:  # swapped bytes or several files: only unpacking can tell
        require_whole_gzip(data_file, header.voxel_bytes // len(header.data_files), header.start)


def read_nrrd_header(path: str) -> NrrdHeader:
    """Read the header of a `.nrrd` or `.nhdr` file.

    Raises:
        DataError: it is not one, or lacks an entry.
    """
    with open(path, "rb") as file:
        lines, end = _header_lines(file.read(_MAX_HEADER), path)
    fields: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields.setdefault(key.strip().lower().replace(" ", ""), value.strip())
    try:
        shape = tuple(map(int, fields["sizes"].split()))
        if len(shape) != int(fields["dimension"]) or min(shape) < 1:
            raise ValueError(f"sizes are {fields['sizes']}")
        voxel_bytes = math.prod(shape) * _bytes_per_value(fields["type"])
        _require_positive_spacing(fields, path)
        data_files = _data_files(fields.get("datafile"), lines, path)
        if int(fields.get("lineskip", "0")):
            raise ValueError("a line skip is not supported")
        start = int(fields.get("byteskip", "0"))
        if data_files == (path,):
            start = end if start >= 0 else -1
        return NrrdHeader(shape, voxel_bytes, fields["encoding"].lower(), data_files, start)
    except (KeyError, ValueError, OverflowError) as err:
        raise DataError(f"{path} has an impossible NRRD header: {err}; copy or convert it again") from err


def _header_lines(start: bytes, path: str) -> tuple[list[str], int]:
    """Lines of the header, which ends with an empty one (or with the file), and the position behind it."""
    if not start.startswith(b"NRRD"):
        raise DataError(f"{path} is not an NRRD file; copy or convert it again")
    lines: list[str] = []
    position = 0
    for line in start.splitlines(keepends=True):
        position += len(line)
        if not line.strip():
            return lines, position
        lines.append(line.decode("latin-1").strip())
    return lines, position


def _bytes_per_value(name: str) -> int:
    name = name.lower().replace("unsigned ", "u").replace("signed ", "").replace(" ", "").removesuffix("_t")
    name = name.replace("longlongint", "longlong").replace("shortint", "short")
    return _BYTES[name] if name in _BYTES else _BYTES[name.removeprefix("u")]


def _data_files(entry: str | None, lines: list[str], path: str) -> tuple[str, ...]:
    """The files with the voxels: the image itself, one other, a list of files, or a numbered series."""
    if entry is None:
        return (path,)
    folder = Path(path).parent
    if entry.upper().startswith("LIST"):
        first = next(i for i, line in enumerate(lines) if re.match(r"data ?file *: *LIST", line, re.IGNORECASE))
        names = lines[first + 1 :]
    elif len(words := entry.split()) >= 4 and "%" in words[0]:  # noqa: PLR2004 - pattern, first, last, step
        first, last, step = map(int, words[1:4])
        if step == 0 or abs(last - first) > _MAX_HEADER:
            raise ValueError(f"data file is {entry}")
        names = [words[0] % number for number in range(first, last + (1 if step > 0 else -1), step)]
    else:
        names = [entry]
    if not names:
        raise ValueError("data file lists no file")
    return tuple(str(folder / name) for name in names)


def _require_whole_streams(header: NrrdHeader) -> None:
    """The length at the end of a gzip file is enough in the usual case of a single stream."""
    needed = header.voxel_bytes // len(header.data_files)
    for data_file in header.data_files:
        if gzip_trailer(data_file)[1] != needed % 2**32:
            require_whole_gzip(data_file, needed, max(header.start, 0))


def _stored_bytes(header: NrrdHeader) -> int:
    if header.encoding in _TEXT:
        return 2 * math.prod(header.shape) - 1  # a digit and a separator each
    return header.voxel_bytes * _TEXT_BYTES.get(header.encoding, 1)


def _require_positive_spacing(fields: dict[str, str], path: str) -> None:
    spacings = [float(word) for word in fields.get("spacings", "").split() if word.lower() != "nan"]
    vectors = re.findall(r"\(([^)]*)\)", fields.get("spacedirections", ""))
    spacings += [math.hypot(*map(float, vector.split(","))) for vector in vectors]
    if not all(0 < length < math.inf for length in spacings):
        raise DataError(
            f"{path} has the voxel spacing {[round(length, 6) for length in spacings]} mm in its header; each must be "
            f"above 0: write the true spacing into the header"
        )
