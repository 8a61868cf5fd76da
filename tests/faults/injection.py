"""How faults are injected: damaged files, full disks, killed processes; and how often.

`make test` injects each fault a few times, `make faults` (the environment variable FAULTS=whole) as often as
docs/reliability.md says.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def times(quick: int, whole: int) -> int:
    """Number of injections of this run."""
    return whole if os.environ.get("FAULTS") == "whole" else quick


def truncate(path: Path, fraction: float) -> None:
    """Keeps the first part of a file."""
    with open(path, "r+b") as file:
        file.truncate(int(path.stat().st_size * fraction))


def flip_bit(path: Path, generator: np.random.Generator, *, start: int = 0, end: int | None = None) -> int:
    """Flips one random bit of the bytes from `start` to `end`; returns the position of the byte."""
    position = int(generator.integers(start, end if end is not None else path.stat().st_size))
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << int(generator.integers(8)))]))
    return position


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Lets writing more than `size` bytes to any file fail (EFBIG), as a full disk does (ENOSPC)."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
