"""Export predicted cases, in worker processes where this is faster; used for prediction and validation."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import compress
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch

from nnunetv2.inference.export_prediction import (
    Logits,
    convert_logits_on_device,
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_labels,
    export_prediction_from_logits,
    resample_and_save,
    revert_cropping_and_transposition,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.processes.worker_pool import WorkerPool, call_here, result_of

# Starting a process takes about as long as exporting this many logit values.
WORTH_A_PROCESS_VALUES = 10**8
QUEUED_EXPORTS = 2

Blame = Callable[[str], AbstractContextManager]
"""Creates the context in which the result of a case is collected; it may record an error, or raise another one."""


@dataclass(frozen=True)
class ExportSetting:
    """Everything an export needs besides the logits."""

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict
    save_probabilities: bool
    num_processes: int
    return_predictions: bool = False
    """also return what is written"""
    device: torch.device | None = None
    """where to turn logits into labels if no probabilities are wanted; None for the CPU"""


class _Export(NamedTuple):
    number: int
    blame: AbstractContextManager
    future: Future


class CaseExporter(AbstractContextManager):
    """Exports cases while the next ones are predicted.

    Args:
        blame: handles the errors of written cases; those of returned cases are raised directly.
        num_waiting: number of exports that may wait for a free process before `write` and `convert` block.
        workers_at_once: use workers from the first case on, instead of only when the work outweighs starting them.
        fail_early: pass errors to `blame` at the next export instead of only in `results`.
    """

    def __init__(
        self,
        setting: ExportSetting,
        blame: Blame,
        *,
        num_waiting: int = QUEUED_EXPORTS,
        workers_at_once: bool = False,
        fail_early: bool = False,
    ) -> None:
        self._setting = setting
        self._label_manager = setting.plans_manager.get_label_manager(setting.dataset_json)
        self._pool = WorkerPool(setting.num_processes, num_waiting)
        self._blame = blame
        self._workers_at_once = workers_at_once
        self._fail_early = fail_early
        self._values_so_far = 0
        # While a GPU computes, files are written without a process too.
        self._thread = None if setting.device is None else ThreadPoolExecutor(1, thread_name_prefix="export")
        self._pending: list[_Export] = []
        self._results: list[Any] = []

    def write(self, case: str, logits: Logits, properties: dict[str, Any], output: str) -> None:
        """Write the segmentation of a case, immediately or in the background.

        Args:
            case: name of the case, for `blame`.
            logits: (K, *spatial) on the grid of the preprocessed image.
            properties: recorded by the preprocessing of the case.
            output: path without ending.
        """
        setting = self._setting
        labels = self._labels_on_device(logits, properties)
        if labels is not None:
            run = self._runner(1, properties)
            arguments = labels, properties, setting.plans_manager, setting.dataset_json, output
            export: Callable = export_labels
        else:
            run = self._runner(len(logits), properties)
            managers = setting.configuration_manager, setting.plans_manager, setting.dataset_json
            arguments = _in_main_memory(logits), properties, *managers, output, setting.save_probabilities
            export = export_prediction_from_logits
        future = run(partial(export, return_prediction=True) if setting.return_predictions else export, *arguments)
        self._submitted(self._blame(case), future)

    def convert(self, logits: Logits, properties: dict[str, Any]) -> None:
        """Like `write`, but returns the segmentation through `results`."""
        setting = self._setting
        labels = self._labels_on_device(logits, properties)
        if labels is not None:
            arguments = labels, setting.plans_manager, self._label_manager, properties
            self._submitted(nullcontext(), call_here(revert_cropping_and_transposition, *arguments))
            return
        future = self._runner(len(logits), properties)(
            convert_predicted_logits_to_segmentation_with_correct_shape,
            _in_main_memory(logits),
            setting.plans_manager,
            setting.configuration_manager,
            self._label_manager,
            properties,
            setting.save_probabilities,
        )
        self._submitted(nullcontext(), future)

    def write_for_next_stage(
        self,
        case: str,
        logits: Logits,
        properties: dict[str, Any],
        output: str,
        *,
        shape: Sequence[int],
        dataset_class: type,
    ) -> None:
        """Like `write`, but on the grid of the next cascade stage, given by the `shape` and `dataset_class` there."""
        setting = self._setting
        future = self._runner(len(logits), properties)(
            resample_and_save,
            _in_main_memory(logits),
            shape,
            output,
            setting.plans_manager,
            setting.configuration_manager,
            properties,
            setting.dataset_json,
            None,
            dataset_class,
        )
        self._submitted(self._blame(case), future)

    def results(self) -> list[Any]:
        """Wait for all exports; return their results in order, None for what is only written."""
        pending, self._pending = self._pending, []
        self._take(pending)
        return self._results

    def _labels_on_device(self, logits: Logits, properties: dict[str, Any]) -> np.ndarray | None:
        setting = self._setting
        if setting.device is None or setting.save_probabilities or not isinstance(logits, torch.Tensor):
            return None
        managers = setting.plans_manager, setting.configuration_manager, self._label_manager
        return convert_logits_on_device(logits, setting.device, *managers, properties)

    def _runner(self, num_channels: int, properties: dict[str, Any]) -> Callable[..., Future]:
        """Choose where the next export runs: here, in the thread or in the pool, which block until there is room."""
        if self._workers_at_once:
            return self._pool.submit
        self._values_so_far += num_channels * math.prod(properties["shape_after_cropping_and_before_resampling"])
        is_worth_a_process = self._values_so_far >= WORTH_A_PROCESS_VALUES
        if self._thread is None:
            return self._pool.submit if is_worth_a_process else call_here
        return self._pool.submit if is_worth_a_process and self._setting.num_processes else self._submit_to_thread

    def _submit_to_thread(self, function: Callable[..., Any], *args: Any) -> Future:
        """Like `WorkerPool.submit`; waits while earlier exports keep too much memory."""
        unfinished = [export.future for export in self._pending if not export.future.done()]
        if len(unfinished) > QUEUED_EXPORTS:
            wait(unfinished[:-QUEUED_EXPORTS])
        return self._thread.submit(function, *args)

    def _submitted(self, blame: AbstractContextManager, future: Future) -> None:
        self._pending.append(_Export(len(self._results), blame, future))
        self._results.append(None)
        if self._fail_early:
            # Query each future once: one that finishes between two queries would land in neither list.
            is_done = [export.future.done() for export in self._pending]
            finished = list(compress(self._pending, is_done))
            self._pending = list(compress(self._pending, map(operator.not_, is_done)))
            self._take(finished)

    def _take(self, exports: Sequence[_Export]) -> None:
        for number, blame, future in exports:
            with blame:
                self._results[number] = result_of(future)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=exc is not None)
        self._pool.__exit__(exc_type, exc, traceback)


def _in_main_memory(logits: Logits) -> np.ndarray:
    # numpy arrays, because tensors sent to a process would need shared memory, which is scarce in containers
    return logits.cpu().numpy() if isinstance(logits, torch.Tensor) else logits
