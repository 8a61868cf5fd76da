"""Watch the processes of a pool while their results are awaited."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from multiprocessing.pool import AsyncResult, Pool
from multiprocessing.process import BaseProcess

from nnunetv2.errors import NNUNetError


class BackgroundWorkerError(NNUNetError, RuntimeError):
    """A worker process ended while its work was still awaited."""


def check_workers_alive_and_busy(
    export_pool: Pool,
    worker_list: Sequence[BaseProcess],
    results_list: Sequence[AsyncResult],
    allowed_num_queued: int = 0,
) -> bool:
    """Says whether the pool has all the work it should have: one task for each worker and some that wait.

    Args:
        worker_list: the pool's processes as they were at its start (a pool replaces dead ones silently).
        results_list: results that were asked for, finished or not.
        allowed_num_queued: how many tasks may wait for a free worker.

    Raises:
        BackgroundWorkerError: one of the processes is no longer alive.
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
