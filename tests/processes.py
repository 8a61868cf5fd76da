"""Waiting for other processes: whether they live, and until something is so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

LONGEST_WAIT = 120  # seconds; on a busy machine a process needs several to start

Found = TypeVar("Found")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended does not, even if nobody has asked for its exit status."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], Found], because: str = "") -> Found:
    """Returns what `condition` returns as soon as that is true; fails with `because` after `LONGEST_WAIT`."""
    deadline = time.monotonic() + LONGEST_WAIT
    while not (found := condition()):
        assert time.monotonic() < deadline, because
        time.sleep(0.02)
    return found
