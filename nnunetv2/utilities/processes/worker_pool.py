"""Run functions in a few other processes, a bounded number at a time, or in this one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from dinov3.utils.processes.cores import num_available_cores, use_threads
from dinov3.utils.processes.process_end import end_with_parent
from nnunetv2.errors import UsageError
from nnunetv2.utilities.processes.background_workers import BackgroundWorkerError


class WorkerPool(AbstractContextManager):
    """Processes for work on whole cases; with 0 of them everything runs in this process, at once.

    A process is started when work is waiting for it, not before. On leaving the context normally all work is finished;
    after an exception, what has not begun is dropped.

    Args:
        num_processes: at least 0; never more than there are cores.
        num_waiting: how many calls may wait for a free process; together with those that run this bounds the memory
            for their arguments.

    Raises:
        UsageError: `num_processes` is negative.
    """

    def __init__(self, num_processes: int, num_waiting: int = 1) -> None:
        if num_processes < 0:
            raise UsageError(f"The number of processes is {num_processes}; it must be 0 (none but this one) or more")
        num_processes = min(num_processes, num_available_cores())
        self.capacity = num_processes + num_waiting if num_processes else 1
        self._unfinished: set[Future] = set()
        self._executor: ProcessPoolExecutor | None = None
        if num_processes:
            # spawn: this process may hold threads and a CUDA context, which a fork does not survive
            self._executor = ProcessPoolExecutor(
                num_processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_prepare_worker,
                initargs=(max(1, num_available_cores() // num_processes),),
            )

    def submit(self, function: Callable[..., Any], *args: Any) -> Future:
        """Returns the future of `function(*args)`; waits first while too much is unfinished."""
        if self._executor is None:
            return call_here(function, *args)
        while len(self._unfinished) >= self.capacity:
            self._unfinished = wait(self._unfinished, return_when=FIRST_COMPLETED).not_done
        future = self._executor.submit(function, *args)
        self._unfinished.add(future)
        return future

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=exc is None, cancel_futures=exc is not None)


def call_here(function: Callable[..., Any], *args: Any) -> Future:
    """The finished future of a call in this process."""
    future: Future = Future()
    try:
        future.set_result(function(*args))
    except Exception as err:
        future.set_exception(err)
    return future


def result_of(future: Future) -> Any:
    """Waits for a future of a `WorkerPool` and returns its result or raises its error.

    Raises:
        BackgroundWorkerError: a process was killed, and with it the pool.
    """
    try:
        return future.result()
    except BrokenProcessPool as err:
        raise BackgroundWorkerError(
            "A worker process died. Most often memory ran out: use fewer processes (-npp, -nps; 0 works without any). "
            'In a Python script, the call must stand below `if __name__ == "__main__":`'
        ) from err


def _prepare_worker(num_threads: int) -> None:
    """Shares the cores among the workers, and makes this one end with the process that started it."""
    use_threads(num_threads)
    end_with_parent()
