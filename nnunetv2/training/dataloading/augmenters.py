"""Runs a data loader in this process or in background workers."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter

from nnunetv2.training.dataloading.batch_workers import AugmentationWorkerDied, BatchWorker, Restarts, receive_ready
from nnunetv2.training.dataloading.device_batches import AugmentedOnDevice

__all__ = ["AugmentationWorkerDied", "Restarts", "WorkerAugmenter", "has_random_workers", "make_augmenter"]


def make_augmenter(
    loader: Any,
    num_processes: int,
    num_cached: int | None = None,
    pin_memory: bool = False,
    restarts: Restarts | None = None,
    keep_order: bool = True,
) -> SingleThreadedAugmenter | WorkerAugmenter:
    """Creates an endless iterator over the batches of `loader`.

    Args:
        loader: picklable iterator over batches, such as `nnUNetDataLoader`. If it has `streams`, each batch is a
            function of its number: batches arrive in order and are the same for any number of workers.
        num_processes: background workers; 0 makes batches in this process.
        num_cached: number of prefetched batches; `None`: half the number of workers, at least 6.
        pin_memory: copy batches to page-locked memory for faster transfer to the current CUDA device.
        restarts: shared by augmenters that count the deaths of their workers together.
        keep_order: wait for a late batch of `streams` instead of taking a later one that is complete.
    """
    if num_processes == 0:
        return SingleThreadedAugmenter(loader, None)
    if num_cached is None:
        num_cached = max(6, num_processes // 2)
    options = {"pin_memory": pin_memory, "restarts": restarts, "keep_order": keep_order}
    return WorkerAugmenter(loader, num_processes, num_cached, **options)


class WorkerAugmenter:
    """Background workers that are independently seeded, are replaced when they die, and exit with their parent.

    With `streams`, any worker makes any batch. Batches are returned in order of their numbers; without `keep_order`,
    only as long as that needs no waiting, which may cost a third of the speed where workers are the bottleneck.

    Args:
        loader: see `make_augmenter`. It receives the attributes `next_batch`, the number of the batch to make, and
            `note_case`, a function to call with the name of a case before it is read.

    Attributes:
        num_out_of_order: batches that were returned before an earlier one.
    """

    def __init__(
        self,
        loader: Any,
        num_processes: int,
        num_cached: int,
        *,
        pin_memory: bool,
        restarts: Restarts | None = None,
        keep_order: bool = True,
    ) -> None:
        self.generator = loader
        self.is_seeded = getattr(loader, "streams", None) is not None
        self.keeps_order = self.is_seeded and keep_order
        self.num_out_of_order = 0
        self._workers = [BatchWorker(loader, number) for number in range(num_processes)]
        self._num_ahead = num_processes + 2 * num_cached  # as many as upstream holds: in workers, queue and thread
        self._restarts = restarts or Restarts()
        self._is_started = False
        self._num_asked = 0
        self._next = 0  # lowest number that was not returned
        self._returned_early: set[int] = set()
        self._received: dict[int, Any] = {}  # batches, or futures of their pinned copies, in order of arrival
        self._pinning = pin_memory and torch.cuda.is_available()
        self._thread: ThreadPoolExecutor | None = None

    def __iter__(self) -> WorkerAugmenter:
        return self

    def __next__(self) -> dict[str, Any]:
        """Returns the next batch.

        Raises:
            DataError: a worker found invalid data; the message is the worker's.
            RuntimeError: a worker raised another exception; the message contains its traceback.
            AugmentationWorkerDied: workers were killed repeatedly.
        """
        try:
            if not self._is_started:
                self._start()
            self._receive(timeout=0)
            # The first one is worth waiting for: it is discarded, and all workers have only begun.
            is_strict = self.keeps_order or (self.is_seeded and self._next == 0)
            while not (self._next in self._received if is_strict else self._received):
                self._receive(timeout=None)
        except Exception:
            self._finish()
            raise
        number = min(self._received)
        batch = self._received.pop(number)
        self._note_returned(number)
        self._ask_for_one_more()
        return batch.result() if isinstance(batch, Future) else batch

    def process_ids(self) -> list[int]:
        """Ids of the running workers."""
        return [worker.process_id for worker in self._workers if worker.process_id is not None]

    def _note_returned(self, number: int) -> None:
        if number != self._next:
            self.num_out_of_order += 1
            self._returned_early.add(number)
            return
        self._next += 1
        while self._next in self._returned_early:
            self._returned_early.remove(self._next)
            self._next += 1

    def _start(self) -> None:
        self._is_started = True
        if self._pinning:
            device = (torch.cuda.current_device(),)
            self._thread = ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=device)
        for worker in self._workers:
            worker.start(self._workers)
        for _ in range(self._num_ahead):
            self._ask_for_one_more()

    def _ask_for_one_more(self) -> None:
        # To the least busy worker, so that no batch waits behind a slow one without need.
        min(self._workers, key=lambda worker: len(worker.asked)).ask(self._num_asked)
        self._num_asked += 1

    def _receive(self, timeout: float | None) -> None:
        for number, batch in receive_ready(self._workers, self._restarts, timeout):
            self._received[number] = batch if self._thread is None else self._thread.submit(_pinned, batch)

    def _finish(self, timeout: float = 0, force: bool = False) -> None:
        """Stops the workers; a later `next` starts new ones. The arguments of upstream's method have no effect."""
        for worker in self._workers:
            worker.stop()
            worker.asked.clear()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = None
        self._received.clear()
        self._returned_early.clear()
        self._num_asked = self._next
        self._is_started = False


def has_random_workers(augmenter: Any) -> bool:
    """True if an iterator over batches has background workers that are not seeded reproducibly."""
    if isinstance(augmenter, AugmentedOnDevice):
        return has_random_workers(augmenter.batches)
    if isinstance(augmenter, WorkerAugmenter):
        return not augmenter.is_seeded
    return isinstance(augmenter, (NonDetMultiThreadedAugmenter, MultiThreadedAugmenter))


def _pinned(value: Any) -> Any:
    """Copies the tensors in nested containers to page-locked memory."""
    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if isinstance(value, dict):
        return {key: _pinned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_pinned(item) for item in value)
    return value
