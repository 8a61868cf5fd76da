"""A lock on a folder: one process writes into it, others are refused or wait."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dinov3.utils.errors import LockedError

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
HEARTBEAT = 30  # seconds between two signs of life
SILENCE_OF_THE_DEAD = 6 * HEARTBEAT
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)

_held: set[str] = set()  # POSIX locks do not exclude their own process, and closing a second handle would release them


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: host, process id, and start of the work as local time."""

    host: str
    pid: int
    start: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.start}"


@contextlib.contextmanager
def locked_folder(
    folder: str | os.PathLike,
    doing: str,
    *,
    part: str | None = None,
    wait: bool = False,
    force: bool = False,
    can_force: bool = True,
) -> Iterator[None]:
    """Locks a folder, which is created if needed, inside the block.

    The operating system releases the lock of a process that ends in any way. Some file systems do not share locks among
    hosts; there the file's content, host, process id and start, decides: a lock of another host is abandoned when it
    has shown no sign of life for three minutes.

    Args:
        doing: what the holder does, for the message to others: "training", "preprocessing".
        part: entry of the folder to lock, instead of the whole folder; it need not exist.
        wait: wait for the holder instead of refusing.
        force: take the lock away from its holder. Both then write into the folder.
        can_force: whether the message may mention --force.

    Raises:
        LockedError: another process, or another thread or block of this one, holds the lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (LOCK_FILE if part is None else f".{part}{LOCK_FILE}")
    folder, name = folder / (part or ""), str(path.resolve())
    if name in _held:
        raise LockedError(f"This process is already {doing} in {folder}; start one at a time")
    with open(path, "a+", encoding="utf-8") as file:
        _acquire(file, folder, doing, wait=wait, force=force, can_force=can_force)
        _held.add(name)
        ended = threading.Event()
        try:
            _write(file, Holder(socket.gethostname(), os.getpid(), f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}"))
            threading.Thread(target=_show_life, args=(path, ended), daemon=True).start()
            yield
        finally:
            ended.set()
            _held.discard(name)
            with contextlib.suppress(OSError):  # a full disk must not hide what happened in the block
                _write(file, None)


def _acquire(file: IO[str], folder: Path, doing: str, *, wait: bool, force: bool, can_force: bool) -> None:
    said = False
    while not (_locked_by_system(file) and not _is_held_elsewhere(_read(file), Path(file.name))):
        holder = _read(file)
        who = f"{holder} is" if holder else "Another process is"
        if force:
            logger.warning("--force: %s %s in %s, and this process now writes there, too", who, doing, folder)
            return
        if not wait:
            forced = ", or use --force if it no longer exists" if can_force else ""
            raise LockedError(f"{who} {doing} in {folder}; wait until it has ended{forced}")
        if not said:
            logger.info("Waiting: %s %s in %s", who, doing, folder)
            said = True
        time.sleep(0.2)


def _locked_by_system(file: IO[str]) -> bool:
    """False if another process holds the lock; True also where the file system or platform has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        # Not flock: forked workers of a killed process would inherit the lock and hold it until they end.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        return err.errno in _UNSUPPORTED
    return True


def _is_held_elsewhere(holder: Holder | None, path: Path) -> bool:
    """Whether the content names a living holder, which matters where the system's lock does not reach it."""
    if holder is None or holder.host == socket.gethostname():
        return False
    return time.time() - path.stat().st_mtime < SILENCE_OF_THE_DEAD


def _read(file: IO[str]) -> Holder | None:
    file.seek(0)
    try:
        return Holder(**json.loads(file.read()))
    except (ValueError, TypeError):  # released, or being written
        return None


def _write(file: IO[str], holder: Holder | None) -> None:
    file.truncate(0)
    if holder is not None:
        file.write(json.dumps(asdict(holder)))
    file.flush()


def _show_life(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
