"""Files of tensors and plain data: written atomically with a digest, and read without executing code.

The file is the zip file that `torch.save` writes; its comment holds the SHA-256 of all bytes before the comment. A zip
comment is ignored by torch, with any version and by other programs, and stays when the file is copied.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.errors import DataError, WriteError

_LABEL = b"content sha256 "
_COMMENT = re.compile(re.escape(_LABEL) + rb"[0-9a-f]{64}")
_COMMENT_SIZE = len(_LABEL) + 64  # bytes
_COMMENT_LENGTH = _COMMENT_SIZE.to_bytes(2, "little")  # last entry of the end record
_END_RECORD, _END_RECORD_SIZE = b"PK\5\6", 22  # of a zip file, before its comment
_CHUNK = 1 << 20  # bytes


def write_tensors(
    content: dict[str, Any],
    path: str | os.PathLike,
    *,
    previous: str | os.PathLike | None = None,
    keeps_previous: bool = False,
) -> None:
    """Saves tensors and plain data, in dictionaries and lists, atomically and with a digest.

    At any time `path` holds the complete old or the complete new file, also after a power loss.

    Args:
        previous: older copy in the same folder. If the disk is full, it is deleted and the file is written again.
        keeps_previous: the replaced file becomes `previous`.

    Raises:
        WriteError: the disk is full.
        OSError: the file cannot be written for another reason.
    """
    kept = previous if keeps_previous else None
    try:
        _write(content, path, kept)
    except WriteError as err:
        if previous is None or not err.needs_space or not os.path.exists(previous):
            raise
        os.unlink(previous)  # the space of an older state serves the new one better
        _write(content, path, None)


def _write(content: dict[str, Any], path: str | os.PathLike, kept: str | os.PathLike | None) -> None:
    # Given a path, torch would store its name in the file, and equal contents would differ in bytes.
    with replace_when_complete(path, keep_as=kept, sync_folder=True) as temporary, open(temporary, "wb") as file:
        stream = _DigestedStream(file)
        try:
            torch.save(content, stream)
        except RuntimeError as err:
            if stream.failure is not None:  # torch reports failed writes of large tensors as errors of its own
                raise stream.failure from err
            raise
        stream.add_comment()


class _DigestedStream:
    """Passes what torch writes on to a file, and hashes it on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        self._digest.update(data)
        try:
            return self._file.write(data)
        except OSError as err:
            self.failure = err
            raise

    def flush(self) -> None:
        self._file.flush()

    def add_comment(self) -> None:
        self._file.seek(-len(_COMMENT_LENGTH), os.SEEK_CUR)
        self._file.write(_COMMENT_LENGTH + _LABEL + self._digest.hexdigest().encode())


def require_intact(path: str | os.PathLike) -> None:
    """Checks a file by `write_tensors` against its digest; files without one, such as other programs', are not checked.

    Raises:
        DataError: the file has changed since it was written.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_RECORD_SIZE - _COMMENT_SIZE))
        ending = file.read()
        if _COMMENT.fullmatch(ending[-_COMMENT_SIZE:]):
            digest = _digest_of(file, size - _COMMENT_SIZE - len(_COMMENT_LENGTH))
            digest.update(bytes(len(_COMMENT_LENGTH)))  # hashed before there was a comment
            is_right = ending[:-_COMMENT_SIZE].endswith(_COMMENT_LENGTH)
            is_damaged = not (is_right and ending.endswith(digest.hexdigest().encode()))
        else:
            is_damaged = _announces_comment(ending)
    if is_damaged:
        raise DataError(f"{path} is damaged: it is not what was saved; use a copy of it, or another checkpoint")


def _announces_comment(ending: bytes) -> bool:
    """True if a zip file's end record says that a comment by `write_tensors` follows."""
    start = ending.rfind(_END_RECORD)
    return start >= 0 and ending[start:][:_END_RECORD_SIZE].endswith(_COMMENT_LENGTH)


def _digest_of(file: BinaryIO, num_bytes: int) -> Any:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    file.seek(0)
    while num_bytes > 0 and (read := file.readinto(buffer[: min(num_bytes, _CHUNK)])):
        digest.update(buffer[:read])
        num_bytes -= read
    return digest


def read_tensors(path: str | os.PathLike, *, lazily: bool = False) -> Any:
    """Reads a file by `write_tensors`, with tensors on the CPU.

    Args:
        lazily: Load tensors from disk on first use; the digest is not checked.

    Raises:
        DataError: The file is damaged, or contains more than tensors and plain data.
    """
    try:
        if not lazily:
            require_intact(path)
        return torch.load(Path(path), map_location="cpu", weights_only=True, mmap=lazily)
    except DataError:
        raise
    except pickle.UnpicklingError as err:
        raise DataError(f"{path} cannot be read: it is damaged, or holds more than tensors and plain data") from err
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as err:
        raise DataError(f"{path} cannot be read: {(str(err).splitlines() or [type(err).__name__])[0]}") from err
