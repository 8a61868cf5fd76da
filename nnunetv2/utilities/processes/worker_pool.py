"""Run functions in worker processes with a bounded queue, or in this process; detect workers that die."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from multiprocessing.pool import AsyncResult, Pool
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from dinov3.utils.processes.cores import num_available_cores, use_threads
from dinov3.utils.processes.process_end import become_worker
from nnunetv2.errors import NNUNetError, UsageError


class BackgroundWorkerError(NNUNetError, RuntimeError):
    """A worker process died while its result was awaited."""


class WorkerPool(AbstractContextManager):
    """Processes for per-case work; with 0 of them everything runs immediately in this process.

    Processes are started on demand. Leaving the context waits for all work; after an exception, queued work is
    cancelled.

    Args:
        num_processes: at least 0; capped at the number of cores.
        num_waiting: number of calls that may wait for a free process; together with the running ones, this bounds the
            memory for their arguments.

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
            # spawn, because this process may hold threads and a CUDA context, which do not survive a fork
            self._executor = ProcessPoolExecutor(
                num_processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_prepare_worker,
                initargs=(max(1, num_available_cores() // num_processes),),
            )

    def submit(self, function: Callable[..., Any], *args: Any) -> Future:
        """Return the future of `function(*args)`; blocks while the queue is full."""
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
            if exc is not None and not isinstance(exc, Exception):
                kill_workers(self._executor)
            self._executor.shutdown(wait=exc is None, cancel_futures=exc is not None)


def kill_workers(executor: ProcessPoolExecutor) -> None:
    """Ends the processes of a pool when this process is to end: it would wait for what they compute."""
    for process in list((executor._processes or {}).values()):
        process.kill()


def call_here(function: Callable[..., Any], *args: Any) -> Future:
    """Run a call in this process and return its completed future."""
    future: Future = Future()
    try:
        future.set_result(function(*args))
    except Exception as err:
        future.set_exception(err)
    return future


def result_of(future: Future) -> Any:
    """Wait for a future of a `WorkerPool`; return its result or raise its error.

    Raises:
        BackgroundWorkerError: a process was killed, which breaks the whole pool.
    """
    try:
        return future.result()
    except BrokenProcessPool as err:
        raise BackgroundWorkerError(
            "A worker process died. Most often memory ran out: use fewer processes (-npp, -nps; 0 works without any). "
            'In a Python script, the call must stand below `if __name__ == "__main__":`'
        ) from err


def check_workers_alive_and_busy(
    export_pool: Pool,
    worker_list: Sequence[BaseProcess],
    results_list: Sequence[AsyncResult],
    allowed_num_queued: int = 0,
) -> bool:
    """Whether a `multiprocessing` pool has enough work: one task per worker, plus some that wait.

    For programs that manage their own pools; upstream's path is `nnunetv2.utilities.file_path_utilities`.

    Args:
        worker_list: the pool's initial processes (a pool silently replaces dead ones).
        results_list: results requested so far, finished or not.
        allowed_num_queued: number of tasks that may wait for a free worker.

    Raises:
        BackgroundWorkerError: one of the processes has died.
    """
    dead = [worker for worker in worker_list if not worker.is_alive()]
    if dead:
        ends = ", ".join(sorted({_describe_end(worker.exitcode) for worker in dead}))
        raise BackgroundWorkerError(
            f"Some background workers are no longer alive ({len(dead)} of {len(worker_list)}: {ends}); signal SIGKILL "
            f"usually means that the machine ran out of memory: use fewer processes"
        )
    num_unfinished = sum(not result.ready() for result in results_list)
    return num_unfinished >= len(worker_list) + allowed_num_queued


def _describe_end(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        try:
            return f"ended by signal {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"ended by signal {-exit_code}"
    return f"exit code {exit_code}"


def _prepare_worker(num_threads: int) -> None:
    """Give this worker its share of the cores, and make it exit with its parent process."""
    become_worker()
    use_threads(num_threads)
