"""Check compressed parts of files (gzip, zlib) against their length and checksum, without keeping the content."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from nnunetv2.errors import DataError

_CHUNK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
_SLACK = 1 << 20  # bytes behind the voxels that some programs leave
_TRAILER = 8  # bytes: CRC-32 and length of a gzip member


class FileSection(io.RawIOBase):
    """The part of a file from `start` to `end` (None: to its end) as a file of its own."""

    def __init__(self, path: str, start: int, end: int | None = None) -> None:
        super().__init__()
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        self._file.seek(start)
        self._left = (os.path.getsize(path) if end is None else end) - start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        data = self._file.read(min(len(buffer), max(self._left, 0)))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def gzip_trailer(path: str) -> tuple[int, int]:
    """CRC-32 and length (modulo 2^32) of the last gzip member's content, from the end of the file."""
    with open(path, "rb") as file:
        return read_gzip_trailer(file)


def read_gzip_trailer(file: BinaryIO) -> tuple[int, int]:
    """Like `gzip_trailer` for an open file."""
    file.seek(max(file.seek(0, os.SEEK_END) - _TRAILER, 0))
    trailer = file.read(_TRAILER)
    return int.from_bytes(trailer[:4], "little"), int.from_bytes(trailer[4:], "little")


def require_whole_gzip(path: str, needed: int, start: int = 0) -> None:
    """Unpack the gzip members from `start` to the end of the file, which verifies all bytes by their CRC-32.

    Raises:
        DataError: the stream is damaged, or has less than `needed` bytes or far more; nothing beyond is unpacked.
    """
    with damage_named(path, needed), FileSection(path, start) as section, gzip.open(section) as stream:
        total = 0
        while block := stream.read(_CHUNK):
            total += len(block)
            _require_not_longer(path, total, needed)
    _require_not_shorter(path, total, needed)


def require_whole_zlib(path: str, needed: int, start: int, end: int | None = None) -> None:
    """Like `require_whole_gzip` for one zlib stream of exactly that length, which is verified by its Adler-32."""
    unpacker, total = zlib.decompressobj(), 0
    with damage_named(path, needed), FileSection(path, start, end) as section:
        while not unpacker.eof:
            pending = unpacker.unconsumed_tail or section.read(_CHUNK)
            if not pending:
                raise EOFError("the stream has no end mark")
            total += len(unpacker.decompress(pending, _CHUNK))
            if total > needed:
                raise DataError(f"{path} is damaged: it unpacks to more than the announced {needed} bytes")
    _require_not_shorter(path, total, needed)


@contextmanager
def damage_named(path: str, needed: int) -> Iterator[None]:
    """Convert errors of the decompression to a `DataError` that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(
            f"{path} is damaged or cut off: its {needed} bytes cannot be unpacked ({err}); copy or convert it again"
        ) from err


def _require_not_longer(path: str, present: int, needed: int) -> None:
    if present > 2 * needed + _SLACK:
        raise DataError(f"{path} is damaged: it unpacks to more than twice the announced {needed} bytes")


def _require_not_shorter(path: str, present: int, needed: int) -> None:
    if present < needed:
        raise DataError(
            f"{path} is cut off: its header announces {needed} bytes, there are {present}; copy or convert it again"
        )
