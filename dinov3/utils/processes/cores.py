"""The processor cores that this process may use, and the threads that it computes with."""

from __future__ import annotations

import os


def num_available_cores() -> int:
    """Processor cores that this process may use (fewer than the machine has inside a container or a batch job)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_threads(num_threads: int) -> None:
    """Limits the threads of torch and of the libraries below numpy (BLAS, OpenMP) in this process."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(num_threads)
    threadpool_limits(num_threads)
