"""Atomic writes: files are written under a temporary name and renamed, so that readers never see partial files."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dinov3.utils.errors import WriteError
from dinov3.utils.json_files import read_json as read_json  # read and write from one place

_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp\.")
_OLDEST_WRITE = 3600  # seconds
_INCOMPLETE, _REPLACED = "incomplete", "replaced"  # endings of hidden folders beside their target
_LONGEST_ENDING = 20  # characters; what follows the last dot of a longer name is no ending


@contextmanager
def replace_when_complete(
    target: str | os.PathLike, *, keep_as: str | os.PathLike | None = None, sync_folder: bool = False
) -> Iterator[Path]:
    """Yields a temporary path next to `target`; on success it replaces the target, on failure it is removed.

    The temporary name keeps the target's ending (`.nii.gz`), because writers infer the format from it. Concurrent
    writes of the same target do not interfere: the last to finish wins.

    Args:
        keep_as: path in the same folder under which the replaced file is kept.
        sync_folder: the new file survives a power loss right afterwards; without it, the old one may come back.

    Raises:
        WriteError: the disk is full; the target is unchanged.
        FileNotFoundError: the block ended without writing the temporary file.
    """
    target = Path(target)
    prefix = f".{secrets.token_hex(4)}.tmp."
    temporary = target.with_name(f"{prefix}file{_format_ending(target.name)}")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # otherwise a power loss could leave an empty file under the final name
        if keep_as is not None and target.exists():
            _keep(target, Path(keep_as))
        os.replace(temporary, target)
        if sync_folder:
            _sync_folder(target.parent)
    except BaseException as err:
        for leftover in target.parent.glob(f"{prefix}*"):  # a writer may have added an ending of its own
            leftover.unlink(missing_ok=True)
        if isinstance(err, OSError) and is_full(err) and not isinstance(err, WriteError):
            raise write_error(target, err) from err
        raise


def _keep(target: Path, kept: Path) -> None:
    """Makes `kept` a second name of the target, so that both are there at any time."""
    if kept.exists() and kept.samefile(target):  # a process was killed before it replaced the target
        return
    temporary = kept.with_name(f".{secrets.token_hex(4)}.tmp.{kept.name}")
    try:
        os.link(target, temporary)
    except OSError:  # a file system without hard links
        os.replace(target, kept)
    else:
        os.replace(temporary, kept)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # not every network file system supports it
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(err: OSError) -> bool:
    """True if a file could not be written for lack of space: full disk, exceeded quota, or limit of a file's size."""
    return err.errno in _FULL


def write_error(path: str | os.PathLike, err: OSError) -> WriteError:
    """Describes an error that `is_full` recognises."""
    reason = "file size limit reached" if err.errno == errno.EFBIG else "quota or space used up"
    return WriteError(
        f"{path} could not be written, disk full ({reason}: {os.strerror(err.errno)}); make space, or use "
        f"a folder on another disk",
        needs_space=err.errno != errno.EFBIG,
    )


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

    Until then the target keeps its content, so both need space. Concurrent writes of the same target do not interfere:
    the last to finish wins. The next call removes what killed processes left behind.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_folders(target)
    owner = f"{os.getpid()}.{_host()}.{secrets.token_hex(4)}"
    temporary, older = (target.with_name(f".{target.name}.{owner}.{end}") for end in (_INCOMPLETE, _REPLACED))
    temporary.mkdir()
    try:
        yield temporary
        # Renaming the old folder first: a kill while it is being deleted would leave a part of it under its name.
        while True:
            with suppress(FileNotFoundError):
                os.replace(target, older)
            try:
                os.replace(temporary, target)
                break
            except OSError as err:
                if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(older, ignore_errors=True)  # another process has just put its own folder there
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)


def _remove_abandoned_folders(target: Path) -> None:
    name, endings = re.escape(target.name), f"{_INCOMPLETE}|{_REPLACED}"
    pattern = re.compile(rf"\.{name}\.(?P<pid>\d+)\.(?P<host>[0-9a-f]+)\.[0-9a-f]{{8}}\.(?:{endings})")
    with os.scandir(target.parent) as entries:
        found = [(entry.path, match) for entry in entries if (match := pattern.fullmatch(entry.name))]
    for path, match in found:
        with suppress(FileNotFoundError):  # finished in the meantime
            if _has_ended(int(match["pid"])) if match["host"] == _host() else _is_old(Path(path)):
                shutil.rmtree(path, ignore_errors=True)


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _has_ended(pid: int) -> bool:
    if os.name == "nt":  # there is no signal 0, and os.kill would end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


def _is_old(folder: Path) -> bool:
    """True if nothing was added to a folder or its subfolders within the last hour."""
    folders = [folder, *(Path(entry) for entry in os.scandir(folder) if entry.is_dir())]
    return time.time() - max(each.stat().st_mtime for each in folders) > _OLDEST_WRITE


def write_json(content: Any, path: str | os.PathLike, *, indent: int = 4, sort_keys: bool = False) -> None:
    """Writes `content` as JSON text, atomically. Raises `TypeError` before anything is written if it is not JSON."""
    text = json.dumps(content, indent=indent, sort_keys=sort_keys)
    with replace_when_complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def create_json(content: Any, path: str | os.PathLike, *, indent: int = 4) -> bool:
    """Writes `content` as JSON text unless the file exists, atomically; returns whether this call has written it.

    Of several processes that create a file at the same time, exactly one writes it.
    """
    text = json.dumps(content, indent=indent)
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, fails if the file exists
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            if path.exists():
                return False
            os.replace(temporary, path)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def without_nonfinite(value: Any) -> Any:
    """Replaces nan and infinity, which JSON cannot express, by None at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nonfinite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nonfinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
