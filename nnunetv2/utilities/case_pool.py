"""Apply a function to every case, in worker processes where that pays."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from nnunetv2.errors import NNUNetError, UsageError


def map_cases(
    function: Callable[..., Any],
    jobs: Sequence[tuple],
    num_processes: int,
    *,
    description: str = "",
    show_progress: bool = False,
) -> Iterator[Any]:
    """Yields `function(*job)` for each job, in the order of `jobs`.

    Workers are started with "spawn" and never outnumber the jobs or the processor cores; a single worker would only add
    its start-up time, so then everything runs in this process.

    Args:
        function: importable by name; what it takes and returns travels between processes.
        jobs: the arguments of each call.
        num_processes: upper limit for the number of workers, at least 1.
        description: shown beside the progress bar.
        show_progress: whether to draw a progress bar, if the output is a terminal.

    Raises:
        UsageError: `num_processes` is below 1.
        NNUNetError: a worker was killed, most often because memory ran out.
    """
    if num_processes < 1:
        raise UsageError(f"The number of processes is {num_processes}; it must be at least 1")
    num_workers = min(num_processes, len(jobs), num_available_cores())
    progress = tqdm(total=len(jobs), desc=description, disable=None if show_progress else True)
    with progress:
        results = _map_here(function, jobs) if num_workers <= 1 else _map_in_workers(function, jobs, num_workers)
        for result in results:
            progress.update()
            yield result


def num_available_cores() -> int:
    """Processor cores that this process may use (fewer than the machine has inside a container or a batch job)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _map_here(function: Callable[..., Any], jobs: Sequence[tuple]) -> Iterator[Any]:
    for job in jobs:
        yield function(*job)


def _map_in_workers(function: Callable[..., Any], jobs: Sequence[tuple], num_workers: int) -> Iterator[Any]:
    executor = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        for future in [executor.submit(function, *job) for job in jobs]:
            yield future.result()
    except BrokenProcessPool as err:
        raise NNUNetError(
            f"One of {num_workers} worker processes was killed, most likely because memory ran out; "
            "use fewer processes (-np, -npfp) or free memory"
        ) from err
    finally:
        executor.shutdown(cancel_futures=True)
