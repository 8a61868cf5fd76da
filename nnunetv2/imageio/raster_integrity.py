"""Detect truncated and oversized PNG, BMP and TIFF files from their header, without reading pixels."""

from __future__ import annotations

import logging
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nnunetv2.errors import DataError
from nnunetv2.imageio.size_limits import UNSUSPICIOUS_SLICE, require_readable_size

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xae\x42\x60\x82"  # type and checksum of the last chunk
_PNG_HEADER_BYTES = 33
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_BMP_HEADER_BYTES = 54
_TIFF_HEADER_BYTES = 16
_TIFF_STARTS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_TIFF_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
_STRIP_OFFSETS, _STRIP_BYTE_COUNTS = 273, 279  # TIFF tags
_MIN_EQUAL_TABLES = 4
_UNCOMPRESSED = 1  # TIFF compression


@dataclass(frozen=True)
class PngHeader:
    width: int
    height: int
    bits: int  # per channel
    num_channels: int
    is_palette: bool


def check_png(path: str) -> PngHeader:
    """Check that a PNG file is whole and of sensible size; returns its header. Raises `DataError` otherwise."""
    with open(path, "rb") as file:
        start = file.read(_PNG_HEADER_BYTES)
        # Libraries accept files truncated after the last pixel. Comments may follow it, but hardly more than this.
        file.seek(max(os.path.getsize(path) - (1 << 20), 0))
        end = file.read()
    if len(start) < _PNG_HEADER_BYTES or not start.startswith(_PNG_START) or start[12:16] != b"IHDR":
        raise DataError(f"{path} is not a PNG file, it may be damaged or cut off; copy or convert it again")
    width, height, bits, colours = struct.unpack(">IIBB", start[16:26])
    if colours not in _PNG_CHANNELS or bits not in (1, 2, 4, 8, 16) or not width or not height:
        raise DataError(
            f"{path} has an impossible PNG header: {width} x {height} pixels of {bits} bits, type {colours}"
        )
    num_channels = _PNG_CHANNELS[colours]
    unpacked = width * height * num_channels * max(bits // 8, 1)
    require_readable_size(
        path,
        (height, width, num_channels),
        unpacked=unpacked,
        packed=os.path.getsize(path),
        unsuspicious=UNSUSPICIOUS_SLICE,
    )
    if _PNG_END not in end:
        raise DataError(f"{path} is cut off: it has no end mark; copy or convert it again")
    return PngHeader(width, height, bits, num_channels, colours == 3)  # noqa: PLR2004 - palette


def check_bmp(path: str) -> None:
    """Check that a BMP file is of sensible size, and whole if it is not compressed. Raises `DataError` otherwise."""
    with open(path, "rb") as file:
        start = file.read(_BMP_HEADER_BYTES)
    if len(start) < _BMP_HEADER_BYTES or start[:2] != b"BM":
        raise DataError(f"{path} is not a BMP file, it may be damaged or cut off; copy or convert it again")
    (offset,) = struct.unpack_from("<I", start, 10)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", start, 18)
    if width < 1 or height == 0 or bits not in (1, 2, 4, 8, 16, 24, 32):
        raise DataError(f"{path} has an impossible BMP header: {width} x {abs(height)} pixels of {bits} bits")
    size = os.path.getsize(path)
    needed = offset + (width * bits + 31) // 32 * 4 * abs(height)
    unpacked = width * abs(height) * max(bits // 8, 1)
    packed = size if compression in (1, 2) else unpacked
    require_readable_size(
        path, (abs(height), width, max(bits // 8, 1)), unpacked=unpacked, packed=packed, unsuspicious=UNSUSPICIOUS_SLICE
    )
    if compression not in (1, 2) and size < needed:
        raise DataError(f"{path} is cut off: its header announces {needed} bytes, there are {size}; copy it again")


def check_tiff(path: str) -> tuple[int, ...]:
    """Check that the pages of a TIFF file are whole and of sensible size; returns the shape of its image.

    Raises:
        DataError: it is damaged, truncated or too large; the message names the file.
    """
    import tifffile

    size = os.path.getsize(path)
    tables = _whole_page_tables(path, size)
    with page_errors_raised(), tifffile.TiffFile(path) as file:
        series = file.series[0]
        shape, page, value_bytes = tuple(series.shape), series.keyframe, series.dtype.itemsize
        is_one_block = series.dataoffset is not None  # all pages, without tables between them
        segments = zip(page.dataoffsets, page.databytecounts, strict=True)
        end_of_page = max((at + count for at, count in segments), default=0)
    unpacked = math.prod(shape) * value_bytes
    require_readable_size(
        path,
        shape,
        unpacked=unpacked,
        packed=unpacked if page.compression == _UNCOMPRESSED else size,
        unsuspicious=UNSUSPICIOUS_SLICE,
    )
    needed = end_of_page
    if is_one_block:
        needed = max(needed, page.dataoffsets[0] + unpacked, _end_of_equal_tables(tables))
    if size < needed:
        raise DataError(f"{path} is cut off: its header announces {needed} bytes, there are {size}; copy it again")
    return shape


def _whole_page_tables(path: str, size: int) -> list[tuple[int, int]]:
    """Start and end of all page tables, which must be there: libraries ignore later ones if the first describes all.

    Source: TIFF 6.0, section 2; https://www.awaresystems.be/imaging/tiff/bigtiff.html.
    """
    with open(path, "rb") as file:
        start = file.read(_TIFF_HEADER_BYTES).ljust(_TIFF_HEADER_BYTES, b"\0")
        if start[:4] not in _TIFF_STARTS:
            raise DataError(f"{path} is not a TIFF file, it may be damaged; copy or convert it again")
        order, is_big = _TIFF_STARTS[start[:4]]
        count_form, tag_form, offset_form, at = ("Q", "HHQQ", "Q", 8) if is_big else ("H", "HHII", "I", 4)
        count_form, tag_form, offset_form = (order + form for form in (count_form, tag_form, offset_form))
        (offset,) = struct.unpack_from(offset_form, start, at)
        tables: list[tuple[int, int]] = []
        seen: set[int] = set()
        sum_of_tables = 0
        while offset:
            if offset in seen or sum_of_tables > size:  # libraries would read pages without end
                raise DataError(
                    f"{path} is damaged: its page tables overlap, or lead back to page 1; copy or convert it again"
                )
            seen.add(offset)
            file.seek(min(offset, size))
            counted = file.read(struct.calcsize(count_form))
            count = struct.unpack(count_form, counted)[0] if len(counted) == struct.calcsize(count_form) else 0
            tags = file.read(min(count * struct.calcsize(tag_form), size))
            following = file.read(struct.calcsize(offset_form))
            is_whole = len(following) == struct.calcsize(offset_form)
            if is_whole:
                tables.append((offset, file.tell()))
                sum_of_tables += file.tell() - offset
                (offset,) = struct.unpack(offset_form, following)
            if not is_whole or (not offset and _end_of_values(tags, tag_form) > size):
                raise DataError(f"{path} is cut off: the table of page {len(seen)} is not whole; copy it again")
    return tables


def _end_of_equal_tables(tables: list[tuple[int, int]]) -> int:
    """Position behind the values that follow the last table of a stack whose later tables all have the same size."""
    if len(tables) < _MIN_EQUAL_TABLES:
        return 0
    gaps = {following[0] - table[1] for table, following in zip(tables[1:], tables[2:], strict=False)}
    return tables[-1][1] + gaps.pop() if len(gaps) == 1 and min(gaps) >= 0 else 0


def _end_of_values(tags: bytes, form: str) -> int:
    """Position behind the values that a table keeps elsewhere, and behind the pixels of a page in one strip."""
    inline = struct.calcsize(form[0] + form[-1])
    entries = {
        tag: (_TIFF_VALUE_BYTES.get(kind, 0) * count, at) for tag, kind, count, at in struct.iter_unpack(form, tags)
    }
    ends = [at + length for length, at in entries.values() if length > inline]
    strip, strip_bytes = entries.get(_STRIP_OFFSETS, (0, 0)), entries.get(_STRIP_BYTE_COUNTS, (0, 0))
    if (
        max(strip[0], strip_bytes[0]) <= inline and form[0] == "<"
    ):  # else shorter values are not at the end of the entry
        ends.append(strip[1] + strip_bytes[1])
    return max(ends, default=0)


class _PageErrors(logging.Handler):
    """Collects tifffile's log messages about skipped pages."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "invalid page offset" in message or "corrupted" in message:
            self.messages.append(message)


@contextmanager
def page_errors_raised() -> Iterator[None]:
    """Raise an error for truncated files, whose missing pages tifffile only logs and skips."""
    handler = _PageErrors()
    library_log = logging.getLogger("tifffile")
    library_log.addHandler(handler)
    try:
        yield
    finally:
        library_log.removeHandler(handler)
    if handler.messages:
        raise ValueError(handler.messages[0])
