"""Commands that write into one folder at the same time: the second is refused, unless both share the work."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from dinov3.utils.atomic_files import remove_interrupted_writes
from nnunetv2.errors import LockedError

LOCK_FILE = ".lock"


@contextlib.contextmanager
def locked_output(folder: str | os.PathLike, doing: str, *, shared: bool = False) -> Iterator[None]:
    """Locks an output folder inside the block.

    Creates the folder, and removes it again if it stays empty. Unlike `locked_folder`, it leaves no file behind, since
    users list the contents of output folders; and several processes may share the lock. Without a competing process,
    files that killed writers left are removed. Where locks do not exist (Windows, some network file systems, read-only
    folders), the block runs without one.

    Args:
        doing: for the message to others: "predicting".
        shared: several processes may hold the lock together, but not beside one that does not share.

    Raises:
        LockedError: another process holds the lock.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    descriptor = _acquired(path, folder, shared=shared)
    try:
        if descriptor is not None:
            start = f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}"
            _write(descriptor, f"Process {os.getpid()} on {socket.gethostname()} is {doing} since {start}")
            if not shared:
                remove_interrupted_writes(folder, min_age=0)
        yield
    finally:
        if descriptor is not None:
            _release(path, descriptor)
        if is_new:
            with contextlib.suppress(OSError):  # it has files
                folder.rmdir()


def _acquired(path: Path, folder: Path, *, shared: bool) -> int | None:
    """Opens and locks the file; None where this is not possible."""
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace") or "Another process is writing there"
            os.close(descriptor)
            raise LockedError(f"{folder} is in use: {holder}; wait until it ends, or give another folder") from None
        except OSError:
            os.close(descriptor)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its last holder has removed it in the meantime


def _write(descriptor: int, text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _release(path: Path, descriptor: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # others still share the lock
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    os.close(descriptor)
