"""Shared memory, open files and memory of this machine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from dinov3.utils.processes.cores import num_available_cores
from nnunetv2.doctor.finding import Finding, error, ok, warning

SHARED_MEMORY = Path("/dev/shm")
_LEAST_SHARED, _ENOUGH_SHARED = 64 * 2**20, 2 * 2**30
_LEAST_MEMORY, _ENOUGH_MEMORY = 4 * 2**30, 16 * 2**30
_ENOUGH_FILES = 1024
_DRIVER = Path("/proc/driver/nvidia/version")
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_machine() -> Iterator[Finding]:
    """Findings about what background workers need."""
    if SHARED_MEMORY.is_dir():
        yield check_shared_memory()
    if (limit := open_file_limit()) is not None:
        if limit < _ENOUGH_FILES:
            cure = f"run ulimit -n {2 * _ENOUGH_FILES} in the shell or job script"
            yield warning("open files", f"at most {limit} per process, too few for many workers", cure)
        else:
            yield ok("open files", f"at most {limit} per process")
    if (memory := usable_memory()) is not None:
        text = f"{_size(memory)}, {num_available_cores()} CPU cores"
        if memory < _LEAST_MEMORY:
            yield error("memory", text, "give the job or container at least 16 GiB")
        elif memory < _ENOUGH_MEMORY:
            yield warning("memory", text, "set nnUNet_n_proc_DA and -np to small numbers, for example 2")
        else:
            yield ok("memory", text)


def check_shared_memory() -> Finding:
    """Shared memory, through which workers pass their batches."""
    free = shutil.disk_usage(SHARED_MEMORY).free
    cure = "start the container with --shm-size=8g (Docker) or --ipc=host, or set nnUNet_n_proc_DA=0"
    text = f"{_size(free)} free in {SHARED_MEMORY}"
    if free < _LEAST_SHARED:
        return error("shared memory", f"{text}, too little for background workers", cure)
    if free < _ENOUGH_SHARED:
        return warning("shared memory", f"{text}, too little for large patches", cure)
    return ok("shared memory", text)


def open_file_limit() -> int | None:
    """Number of files that a process may open; None if the platform has no such limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def usable_memory() -> int | None:
    """Bytes of memory that this process may use: those of the machine or of its container, if that has fewer."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    for path in _CGROUP_LIMITS:
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            memory = min(memory, int(text))
    return memory


def driver_version() -> str | None:
    """Version of the loaded NVIDIA driver; None if there is none."""
    if not _DRIVER.is_file():
        return None
    match = re.search(r"\s(\d+\.\d+[\d.]*)\s", _DRIVER.read_text())
    return match[1] if match else "of unknown version"


def _size(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
