"""Runs a data loader in this process or in background workers, each with random numbers of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter

from nnunetv2.errors import NNUNetError

_FAILURE = "worker_failure"
_POLL_SECONDS = 0.002
_SHUTDOWN_SECONDS = 5


class AugmentationWorkerDied(NNUNetError, RuntimeError):
    """A background worker vanished without an exception of its own, mostly for lack of memory."""


def make_augmenter(
    loader: Any,
    num_processes: int,
    num_cached: int | None = None,
    pin_memory: bool = False,
    seeds: Sequence[int] | None = None,
) -> SingleThreadedAugmenter | NonDetMultiThreadedAugmenter:
    """An endless iterator over the batches of `loader`.

    Args:
        loader: an iterator over batches that can be pickled, such as `nnUNetDataLoader`.
        num_processes: background workers. 0 makes batches in this process, with its random generators: seeded runs
            then repeat exactly.
        num_cached: finished batches that may wait; `None` is half the workers, but at least 6.
        pin_memory: copy batches to page-locked memory for faster transfer to the current CUDA device.
        seeds: one per worker, below 2**32, see `worker_seeds`; `None` draws them from the operating system. With
            several workers the order of the batches still varies.
    """
    if num_processes == 0:
        return SingleThreadedAugmenter(loader, None)
    return WorkerAugmenter(
        loader,
        num_processes,
        max(6, num_processes // 2) if num_cached is None else num_cached,
        pin_memory=pin_memory,
        seeds=worker_seeds(num_processes) if seeds is None else seeds,
    )


def worker_seeds(num_processes: int, seed: int | None = None, rank: int = 0) -> list[int]:
    """Independent 32-bit seeds for the workers of one process; `seed` None takes entropy of the operating system.

    Args:
        num_processes: number of seeds.
        seed: the run's seed.
        rank: this process among the distributed ones; ranks get different seeds from the same `seed`.
    """
    entropy = None if seed is None else (seed, rank)
    return [int(value) for value in np.random.SeedSequence(entropy).generate_state(num_processes)]


class WorkerAugmenter(NonDetMultiThreadedAugmenter):
    """Background workers that say why they failed and that end with their parent.

    Without seeds of their own, forked workers would all inherit the same torch generator and draw the same noise,
    mirrorings and decisions.
    """

    def __init__(
        self, loader: Any, num_processes: int, num_cached: int, *, pin_memory: bool, seeds: Sequence[int]
    ) -> None:
        super().__init__(
            _WorkerLoader(loader),
            None,
            num_processes,
            num_cached,
            seeds=list(seeds),
            pin_memory=pin_memory,
            wait_time=_POLL_SECONDS,
        )

    def __next__(self) -> dict[str, Any]:
        """The next finished batch.

        Raises:
            DataError: a worker met bad data; the message is the worker's.
            RuntimeError: a worker raised something else; its traceback is in the message.
            AugmentationWorkerDied: a worker was killed.
        """
        if not self.initialized:
            self._start()
        workers = list(self._processes)
        try:
            batch = super().__next__()
        except RuntimeError as err:
            raise AugmentationWorkerDied(_explain_death(workers)) from err
        if _FAILURE in batch:
            self._finish()
            raise batch[_FAILURE]
        return batch

    def _finish(self, timeout: float = _SHUTDOWN_SECONDS, force: bool = False) -> None:
        super()._finish(timeout, force)


class _WorkerLoader:
    """Wraps a loader inside a worker: exceptions travel to the parent as a batch of their own."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def set_thread_id(self, thread_id: int) -> None:
        """Called once in each worker, with its number, before the first batch."""
        _end_with_parent()
        self.loader.set_thread_id(thread_id)

    def __iter__(self) -> _WorkerLoader:
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            return next(self.loader)
        except NNUNetError as err:
            return {_FAILURE: err}
        except Exception as err:  # whatever it is, the parent must hear of it
            return {_FAILURE: RuntimeError(f"making a batch failed with {err!r}\n{traceback.format_exc()}")}


def _end_with_parent() -> None:
    """Lets this worker end when its parent does, even if that was killed and could not tell it to."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait_and_leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_leave, daemon=True).start()


def _explain_death(workers: Sequence[multiprocessing.Process]) -> str:
    """One line on why a background worker may have vanished, from the exit codes of all of them."""
    ends = [_describe_end(worker.exitcode) for worker in workers if worker.exitcode not in (None, 0, -signal.SIGTERM)]
    return (
        f"a data augmentation worker died ({', '.join(ends) or 'no exit code'}); the usual causes are too little "
        "memory (the kernel kills with signal 9: set nnUNet_n_proc_DA to fewer workers), too little shared memory in "
        "/dev/shm (signal 7; docker: --shm-size or --ipc=host) and too few open files (ulimit -n); nnUNet_n_proc_DA=0 "
        "makes batches in the main process and shows errors where they happen"
    )


def _describe_end(exit_code: int) -> str:
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
