"""Available processor cores, and limits on threads."""

from __future__ import annotations

import os


def num_available_cores() -> int:
    """Returns the processor cores available to this process (in a container or batch job, fewer than the machine's)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_threads(num_threads: int) -> None:
    """Limits the threads of torch and of the libraries below numpy (BLAS, OpenMP) in this process."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(num_threads)
    threadpool_limits(num_threads)
