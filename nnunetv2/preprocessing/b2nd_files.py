"""Write, check and open the compressed arrays (.b2nd) of preprocessed cases.

A Blosc2 file can also describe expressions, remote arrays and functions, which old versions of the library evaluate on
opening. Only plain arrays of numbers are opened here. Compressed chunks have no checksum of their own, so one is stored
beside them, where upstream and files of older versions have none.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import blosc2
import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import DataError

PREPROCESS_IT = "run nnUNetv2_preprocess for this case"

_CHECKSUM = "crc32"
# Source: README_CFRAME_FORMAT.rst of https://github.com/Blosc/c-blosc2, a MessagePack array of fixed layout.
_FRAME_START = b"\x9e\xa8b2frame\x00\xd2"
_FIXED_BYTES = 87
_MAX_HEADER = 1 << 16
_PLAIN_ARRAY = ["b2nd"]


class StoredArray(blosc2.NDArray):
    """An array on disk whose errors name its file; chunks are read and decompressed when it is sliced."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a part; raises `DataError` if the file is damaged."""
        try:
            if isinstance(key, slice) and key == slice(None):  # as validation does; patches are checked before training
                _require_checksum(self)
            return super().__getitem__(key)
        except IndexError:
            raise
        except Exception as err:  # damaged chunks raise RuntimeError, ValueError and others
            raise damaged(self.schunk.urlpath, err, _remedy_of(self)) from err


def _remedy_of(array: StoredArray) -> str:
    return getattr(array, "remedy", PREPROCESS_IT)


def damaged(path: str, reason: object, remedy: str = PREPROCESS_IT) -> DataError:
    return DataError(f"{path} cannot be read; {remedy} again ({reason})")


def write_b2nd(array: np.ndarray, path: str, **options: Any) -> None:
    """Write an array with its checksum, atomically; `options` are those of `blosc2.asarray`."""
    with replace_when_complete(path) as temporary:
        stored = blosc2.asarray(np.ascontiguousarray(array), urlpath=str(temporary), **options)
        stored.schunk.vlmeta[_CHECKSUM] = _checksum(stored)


def open_b2nd(path: str, **options: Any) -> StoredArray:
    """Open an array for slicing; `options` are those of `blosc2.open`.

    Raises:
        ValueError: the file is anything but a plain array of numbers.
        Exception: the library's own errors for damaged files.
    """
    kinds = _metadata_names(path)
    if kinds != _PLAIN_ARRAY:
        raise ValueError(f"it holds {', '.join(kinds) or 'no array'} where a plain array is expected")
    array = blosc2.open(path, mode="r", **options)
    if type(array) is not blosc2.NDArray or array.dtype.kind not in "biuf":
        raise ValueError(f"it holds a {type(array).__name__} of {getattr(array, 'dtype', 'no type')}")
    array.__class__ = StoredArray
    return array


def verify_b2nd(path: str, open_array: Callable[[str], StoredArray]) -> None:
    """Read all compressed chunks and compare their checksum; files without one pass if their chunks can be read.

    Raises:
        DataError: the file is damaged.
    """
    array = open_array(path)
    try:
        _require_checksum(array)
    except Exception as err:  # each kind of damage raises its own
        raise damaged(path, err) from err


def _require_checksum(array: blosc2.NDArray) -> None:
    """Raise `ValueError` if the checksum differs, or an error of the library if chunks cannot be read."""
    content = array.schunk.vlmeta
    found = _checksum(array)
    if _CHECKSUM in content and content[_CHECKSUM] != found:
        raise ValueError("its checksum differs")


def _checksum(array: blosc2.NDArray) -> int:
    layout = (array.shape, array.chunks, array.blocks, array.dtype.str)
    value = zlib.crc32(repr(layout).encode())
    for number in range(array.schunk.nchunks):
        value = zlib.crc32(array.schunk.get_chunk(number), value)
    return value


def _metadata_names(path: str) -> list[str]:
    """Names of the fixed metadata in a frame's header, read without the library; they tell what the object is."""
    with open(path, "rb") as file:
        header = file.read(_MAX_HEADER)
    if not header.startswith(_FRAME_START):
        raise ValueError("it is not a Blosc2 file")
    (length,) = struct.unpack_from(">i", header, len(_FRAME_START))
    if length <= _FIXED_BYTES:
        return []
    count, position = struct.unpack_from(">H", header, _FIXED_BYTES + 5)[0], _FIXED_BYTES + 7
    names = []
    for _ in range(count):
        size = header[position] & 0x1F
        names.append(header[position + 1 : position + 1 + size].decode("latin-1"))
        position += 1 + size + 5  # the offset of the content: a marker and four bytes
    return names
