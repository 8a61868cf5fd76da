"""Preprocess cases for prediction: ahead of time in other processes or a thread, or one at a time in this process."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from batchgenerators.dataloading.data_loader import DataLoader

from nnunetv2.inference.case_preprocessing import CasePreprocessor, Item
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.processes.worker_pool import BackgroundWorkerError, WorkerPool, result_of

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Event

# Starting a process takes seconds for imports. Less data than this is preprocessed faster without one.
WORTH_A_PROCESS_BYTES = 32 * 2**20


class FailedCase(dict):
    """Placeholder for a case that could not be preprocessed; accessing its data raises the original error."""

    def __init__(self, ofile: str | None, error: Exception) -> None:
        super().__init__(ofile=ofile)
        self.error = error

    def __missing__(self, key: str) -> Any:
        raise self.error


class PreprocessedCases(Iterator[Item]):
    """Iterates over preprocessed cases in order; a failing case yields a `FailedCase`, and the iteration continues.

    `operator.length_hint` returns the number of remaining cases. `close` stops early.

    Args:
        preprocess: creates the item of one case; importable by name.
        jobs: arguments of each call; the last one is the output path.
        num_processes: 0 preprocesses each case in this process when it is requested.
        pin_memory: use page-locked memory, from which transfers to a GPU are faster.
        ahead: without processes, preprocess the next case in a thread meanwhile; for a consumer that computes on a GPU.
    """

    def __init__(
        self,
        preprocess: Callable[..., Item],
        jobs: Sequence[tuple],
        num_processes: int,
        pin_memory: bool = False,
        *,
        ahead: bool = False,
    ) -> None:
        self._num_left = len(jobs)
        if ahead and num_processes == 0 and len(jobs) > 1:
            self._items = _preprocess_ahead(preprocess, jobs)
        else:
            self._items = _preprocess_all(preprocess, jobs, min(num_processes, len(jobs)))
        self._pin_memory = pin_memory

    def __next__(self) -> Item:
        item = next(self._items)
        self._num_left -= 1
        if self._pin_memory and "data" in item:
            item["data"] = item["data"].pin_memory()
        return item

    def __length_hint__(self) -> int:
        return self._num_left

    def close(self) -> None:
        self._items.close()


def _preprocess_all(preprocess: Callable[..., Item], jobs: Sequence[tuple], num_processes: int) -> Iterator[Item]:
    with WorkerPool(num_processes) as pool:
        begun: deque = deque()
        for job in jobs:
            begun.append((pool.submit(preprocess, *job), job[-1]))
            if len(begun) >= pool.capacity:
                yield _item_of(*begun.popleft())
        while begun:
            yield _item_of(*begun.popleft())


def _preprocess_ahead(preprocess: Callable[..., Item], jobs: Sequence[tuple]) -> Iterator[Item]:
    thread = ThreadPoolExecutor(1, thread_name_prefix="preprocessing")
    try:
        begun = thread.submit(preprocess, *jobs[0])
        for job, following in zip(jobs, [*jobs[1:], None], strict=True):
            current = begun
            if following is not None:
                begun = thread.submit(preprocess, *following)
            yield _item_of(current, job[-1])
    finally:
        thread.shutdown(cancel_futures=True)


def _item_of(future: Any, ofile: str | None) -> Item:
    try:
        item = result_of(future)
    except BackgroundWorkerError:
        raise  # the pool is broken, so this is not an error of the case
    except Exception as err:
        return FailedCase(ofile, err)
    return _as_tensor(item)


def preprocessing_iterator_fromfiles(
    list_of_lists: Sequence[Sequence[str]],
    list_of_segs_from_prev_stage_files: Sequence[str | None] | None,
    output_filenames_truncated: Sequence[str | None] | None,
    plans_manager: PlansManager,
    dataset_json: dict,
    configuration_manager: ConfigurationManager,
    num_processes: int,
    pin_memory: bool = False,
    verbose: bool = False,
    *,
    ahead: bool = False,
) -> PreprocessedCases:
    """Iterate over the preprocessed cases of image files; see `PreprocessedCases`."""
    preprocessor = CasePreprocessor(plans_manager, dataset_json, configuration_manager, verbose)
    jobs = _jobs(list_of_lists, list_of_segs_from_prev_stage_files, output_filenames_truncated)
    return PreprocessedCases(preprocessor.from_files, jobs, num_processes, pin_memory, ahead=ahead)


def preprocessing_iterator_fromnpy(
    list_of_images: Sequence[np.ndarray],
    list_of_segs_from_prev_stage: Sequence[np.ndarray | None] | None,
    list_of_image_properties: Sequence[dict],
    truncated_ofnames: Sequence[str | None] | None,
    plans_manager: PlansManager,
    dataset_json: dict,
    configuration_manager: ConfigurationManager,
    num_processes: int,
    pin_memory: bool = False,
    verbose: bool = False,
    *,
    ahead: bool = False,
) -> PreprocessedCases:
    """Iterate over the preprocessed cases of images (C, Z, Y, X); see `PreprocessedCases`."""
    preprocessor = CasePreprocessor(plans_manager, dataset_json, configuration_manager, verbose)
    jobs = _jobs(list_of_images, list_of_segs_from_prev_stage, list_of_image_properties, truncated_ofnames)
    return PreprocessedCases(preprocessor.from_npy, jobs, num_processes, pin_memory, ahead=ahead)


def _jobs(images: Sequence[Any], *further: Sequence[Any] | None) -> list[tuple]:
    """Zip the arguments of each case; a list that is None yields None for every case."""
    columns = [column if column is not None else [None] * len(images) for column in further]
    return list(zip(images, *columns, strict=True))


def preprocess_fromfiles_save_to_queue(
    list_of_lists: Sequence[Sequence[str]],
    list_of_segs_from_prev_stage_files: Sequence[str | None] | None,
    output_filenames_truncated: Sequence[str | None] | None,
    plans_manager: PlansManager,
    dataset_json: dict,
    configuration_manager: ConfigurationManager,
    target_queue: Queue[Item],
    done_event: Event,
    abort_event: Event,
    verbose: bool = False,
) -> None:
    """Put the items of image files into a queue, for programs that manage their own processes."""
    preprocessor = CasePreprocessor(plans_manager, dataset_json, configuration_manager, verbose)
    jobs = _jobs(list_of_lists, list_of_segs_from_prev_stage_files, output_filenames_truncated)
    _save_to_queue(preprocessor.from_files, jobs, target_queue, done_event, abort_event)


def preprocess_fromnpy_save_to_queue(
    list_of_images: Sequence[np.ndarray],
    list_of_segs_from_prev_stage: Sequence[np.ndarray | None] | None,
    list_of_image_properties: Sequence[dict],
    truncated_ofnames: Sequence[str | None] | None,
    plans_manager: PlansManager,
    dataset_json: dict,
    configuration_manager: ConfigurationManager,
    target_queue: Queue[Item],
    done_event: Event,
    abort_event: Event,
    verbose: bool = False,
) -> None:
    """Put the items of images (C, Z, Y, X) into a queue, for programs that manage their own processes."""
    preprocessor = CasePreprocessor(plans_manager, dataset_json, configuration_manager, verbose)
    jobs = _jobs(list_of_images, list_of_segs_from_prev_stage, list_of_image_properties, truncated_ofnames)
    _save_to_queue(preprocessor.from_npy, jobs, target_queue, done_event, abort_event)


def _save_to_queue(
    preprocess: Callable[..., Item],
    jobs: Sequence[tuple],
    target_queue: Queue[Item],
    done_event: Event,
    abort_event: Event,
) -> None:
    """Set `done_event` after the last item, or `abort_event` on an error; stops early if `abort_event` is set."""
    try:
        for job in jobs:
            item = _as_tensor(preprocess(*job))
            # A blocking put would hang forever once the consumer has stopped.
            while not abort_event.is_set():
                try:
                    target_queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            else:
                return
        done_event.set()
    except Exception:
        abort_event.set()
        raise


def num_useful_processes(num_processes: int, num_cases: int, num_bytes: int) -> int:
    """Number of processes to start for some cases; 0 if the cases are too few or too small to justify them.

    Args:
        num_processes: maximum set by the user.
        num_bytes: size of all inputs.
    """
    if num_cases < 2 or num_bytes < WORTH_A_PROCESS_BYTES:
        return 0
    return min(num_processes, num_cases)


class PreprocessAdapter(DataLoader):
    """A batchgenerators loader that yields the items of single cases, read from files."""

    def __init__(
        self,
        list_of_lists: Sequence[Sequence[str]],
        list_of_segs_from_prev_stage_files: Sequence[str | None] | None,
        preprocessor: Any,
        output_filenames_truncated: Sequence[str | None] | None,
        plans_manager: PlansManager,
        dataset_json: dict,
        configuration_manager: ConfigurationManager,
        num_threads_in_multithreaded: int = 1,
    ) -> None:
        cases = CasePreprocessor(plans_manager, dataset_json, configuration_manager, preprocessor=preprocessor)
        self.preprocess_case = cases.from_files
        jobs = _jobs(list_of_lists, list_of_segs_from_prev_stage_files, output_filenames_truncated)
        super().__init__(jobs, 1, num_threads_in_multithreaded, shuffle=False, infinite=False)
        self.indices = list(range(len(jobs)))

    def generate_train_batch(self) -> Item:
        return _as_tensor(self.preprocess_case(*self._data[self.get_indices()[0]]))


class PreprocessAdapterFromNpy(DataLoader):
    """A batchgenerators loader that yields the items of single cases, created from arrays (C, Z, Y, X)."""

    def __init__(
        self,
        list_of_images: Sequence[np.ndarray],
        list_of_segs_from_prev_stage: Sequence[np.ndarray | None] | None,
        list_of_image_properties: Sequence[dict],
        truncated_ofnames: Sequence[str | None] | None,
        plans_manager: PlansManager,
        dataset_json: dict,
        configuration_manager: ConfigurationManager,
        num_threads_in_multithreaded: int = 1,
        verbose: bool = False,
    ) -> None:
        self.preprocess_case = CasePreprocessor(plans_manager, dataset_json, configuration_manager, verbose).from_npy
        jobs = _jobs(list_of_images, list_of_segs_from_prev_stage, list_of_image_properties, truncated_ofnames)
        super().__init__(jobs, 1, num_threads_in_multithreaded, shuffle=False, infinite=False)
        self.indices = list(range(len(jobs)))

    def generate_train_batch(self) -> Item:
        return _as_tensor(self.preprocess_case(*self._data[self.get_indices()[0]]))


def _as_tensor(item: Item) -> Item:
    return {**item, "data": torch.from_numpy(item["data"])}
