"""Atomic writes: files are written under a temporary name and renamed, so that readers never see partial files."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dinov3.utils.errors import DataError

_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp\.")
_OLDEST_WRITE = 3600  # seconds
_LONGEST_ENDING = 20  # characters; what follows the last dot of a longer name is no ending


@contextmanager
def replace_when_complete(target: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path next to `target`; on success it replaces the target, on failure it is removed.

    The temporary name keeps the target's ending (`.nii.gz`), because writers infer the format from it. Concurrent
    writes of the same target do not interfere: the last to finish wins.

    Raises:
        FileNotFoundError: the block ended without writing the temporary file.
    """
    target = Path(target)
    prefix = f".{secrets.token_hex(4)}.tmp."
    temporary = target.with_name(f"{prefix}file{_format_ending(target.name)}")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # otherwise a power loss could leave an empty file under the final name
        os.replace(temporary, target)
    except BaseException:
        for leftover in target.parent.glob(f"{prefix}*"):  # a writer may have added an ending of its own
            leftover.unlink(missing_ok=True)
        raise


def _format_ending(name: str) -> str:
    """The ending that writers infer the format from: `.nii.gz` of `a.b.nii.gz`.

    Not the whole name: with the temporary prefix a long one would exceed what file systems allow, and ITK drops the
    second of two NIfTI endings (`case.nii.nii.gz`).
    """
    stem, ending = os.path.splitext(name)
    whole = os.path.splitext(stem)[1] + ending  # `.nii.gz`, `.ome.tif`
    if ending.lower() in (".gz", ".tif", ".tiff") and len(whole) <= _LONGEST_ENDING:
        return whole
    return ending if len(ending) <= _LONGEST_ENDING else ""


def remove_interrupted_writes(folder: str | os.PathLike, *, min_age: float = _OLDEST_WRITE) -> None:
    """Removes temporary files that killed processes left in a folder, not in its subfolders.

    Args:
        min_age: seconds since the last change of a file; younger ones are kept, because another process may be writing
            them. 0 for a folder that no other process writes to.
    """
    for path in Path(folder).glob(".*.tmp.*"):
        with suppress(FileNotFoundError):  # finished in the meantime
            is_old = min_age <= 0 or time.time() - path.stat().st_mtime > min_age  # clocks of file servers may differ
            if is_old and _TEMPORARY.match(path.name):
                path.unlink()


@contextmanager
def replace_folder_when_complete(target: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty folder next to `target`; on success it replaces the target, on failure it is removed.

    Until then the target keeps its content, so both need space. The next call removes leftovers of a killed process.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(content: Any, path: str | os.PathLike, *, indent: int = 4, sort_keys: bool = False) -> None:
    """Writes `content` as JSON text, atomically. Raises `TypeError` before anything is written if it is not JSON."""
    text = json.dumps(content, indent=indent, sort_keys=sort_keys)
    with replace_when_complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def without_nonfinite(value: Any) -> Any:
    """Replaces nan and infinity, which JSON cannot express, by None at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nonfinite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nonfinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file; invalid JSON raises `DataError` with the path and the first invalid line."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as err:
        raise DataError(f"{path} is not valid JSON (line {err.lineno}: {err.msg}); correct or remove the file") from err
