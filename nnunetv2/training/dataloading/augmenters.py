"""Runs a data loader in this process or in independently seeded background workers."""

from __future__ import annotations

import math
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter

from dinov3.utils.processes.process_end import end_with_parent
from nnunetv2.errors import NNUNetError

_FAILURE = "worker_failure"
_POLL_SECONDS = 0.002
_SHUTDOWN_SECONDS = 5


class AugmentationWorkerDied(NNUNetError, RuntimeError):
    """A background worker died without raising an exception, usually out of memory."""


def make_augmenter(
    loader: Any, num_processes: int, num_cached: int | None = None, pin_memory: bool = False
) -> SingleThreadedAugmenter | WorkerAugmenter | OrderedWorkerAugmenter:
    """Creates an endless iterator over the batches of `loader`.

    Args:
        loader: picklable iterator over batches, such as `nnUNetDataLoader`. If it has `streams`, each batch is a
            function of its number: batches arrive in order and are the same for any number of workers.
        num_processes: background workers; 0 makes batches in this process.
        num_cached: number of prefetched batches; `None`: half the number of workers, at least 6.
        pin_memory: copy batches to page-locked memory for faster transfer to the current CUDA device.
    """
    if num_processes == 0:
        return SingleThreadedAugmenter(loader, None)
    if num_cached is None:
        num_cached = max(6, num_processes // 2)
    if getattr(loader, "streams", None) is None:
        return WorkerAugmenter(loader, num_processes, num_cached, pin_memory=pin_memory)
    loader.number_of_threads_in_multithreaded = num_processes
    return OrderedWorkerAugmenter(loader, num_processes, num_cached, pin_memory=pin_memory)


def worker_seeds(num_processes: int) -> list[int]:
    """Draws independent 32-bit seeds for the workers of one process from the operating system's entropy."""
    return [int(value) for value in np.random.SeedSequence().generate_state(num_processes)]


class WorkerAugmenter(NonDetMultiThreadedAugmenter):
    """Background workers that report why they failed and exit with their parent; batches arrive as they finish.

    Each worker is seeded: forked workers would otherwise inherit the same torch generator and draw identical
    augmentations.
    """

    def __init__(self, loader: Any, num_processes: int, num_cached: int, *, pin_memory: bool) -> None:
        super().__init__(
            _WorkerLoader(loader),
            None,
            num_processes,
            num_cached,
            seeds=worker_seeds(num_processes),
            pin_memory=pin_memory,
            wait_time=_POLL_SECONDS,
        )

    def __next__(self) -> dict[str, Any]:
        """Returns the next finished batch; raises as `_next_batch`."""
        if not self.initialized:
            self._start()
        return _next_batch(self, super().__next__)

    def _finish(self, timeout: float = _SHUTDOWN_SECONDS, force: bool = False) -> None:
        super()._finish(timeout, force)


class OrderedWorkerAugmenter(MultiThreadedAugmenter):
    """`WorkerAugmenter` with deterministic order: batches are taken from the workers round-robin.

    Each worker has its own queue, which limits how far it runs ahead.
    """

    def __init__(self, loader: Any, num_processes: int, num_cached: int, *, pin_memory: bool) -> None:
        super().__init__(
            _WorkerLoader(loader),
            None,
            num_processes,
            math.ceil(num_cached / num_processes),
            pin_memory=pin_memory,
            wait_time=_POLL_SECONDS,
        )

    def __next__(self) -> dict[str, Any]:
        """Returns the next batch in order; raises as `_next_batch`."""
        if not self.was_initialized:
            self._start()
        return _next_batch(self, super().__next__)

    def _finish(self, timeout: float = _SHUTDOWN_SECONDS, force: bool = False) -> None:
        super()._finish(timeout, force)


def has_random_workers(augmenter: Any) -> bool:
    """True if an iterator over batches has background workers that are not seeded reproducibly."""
    kinds = (NonDetMultiThreadedAugmenter, MultiThreadedAugmenter)
    return isinstance(augmenter, kinds) and not isinstance(augmenter, OrderedWorkerAugmenter)


def _next_batch(
    augmenter: WorkerAugmenter | OrderedWorkerAugmenter, next_batch: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Calls `next_batch` and converts failures of workers to exceptions.

    Raises:
        DataError: a worker found invalid data; the message is the worker's.
        RuntimeError: a worker raised another exception; the message contains its traceback.
        AugmentationWorkerDied: a worker was killed.
    """
    workers = list(augmenter._processes)
    try:
        batch = next_batch()
    except RuntimeError as err:
        raise AugmentationWorkerDied(_explain_death(workers)) from err
    if _FAILURE in batch:
        augmenter._finish()
        raise batch[_FAILURE]
    return batch


class _WorkerLoader:
    """Wraps a loader inside a worker: an exception is sent to the parent as a special batch."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def set_thread_id(self, thread_id: int) -> None:
        """Called once in each worker, with its number, before the first batch."""
        end_with_parent()
        torch.set_num_threads(1)  # one core per worker
        self.loader.set_thread_id(thread_id)

    def __iter__(self) -> _WorkerLoader:
        return self

    def __next__(self) -> dict[str, Any]:
        try:
            return next(self.loader)
        except NNUNetError as err:
            return {_FAILURE: err}
        except Exception as err:  # the parent must see every failure
            return {_FAILURE: RuntimeError(f"making a batch failed with {err!r}\n{traceback.format_exc()}")}


def _explain_death(workers: Sequence[multiprocessing.Process]) -> str:
    """Explains in one line why a background worker may have died, from the exit codes of all workers."""
    ends = [_describe_end(worker.exitcode) for worker in workers if worker.exitcode not in (None, 0, -signal.SIGTERM)]
    return (
        f"a data augmentation worker died ({', '.join(ends) or 'no exit code'}); the usual causes are too little "
        "memory (the kernel kills with signal 9: set nnUNet_n_proc_DA to fewer workers), too little shared memory in "
        "/dev/shm (signal 7; docker: --shm-size or --ipc=host) and too few open files (ulimit -n); nnUNet_n_proc_DA=0 "
        "makes batches in the main process and shows errors where they happen"
    )


def _describe_end(exit_code: int) -> str:
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
