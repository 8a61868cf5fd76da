"""Export predicted cases, in worker processes where that pays; for prediction and for validation."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import compress
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
    resample_and_save,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.processes.worker_pool import WorkerPool, call_here, result_of

# Starting a process costs as much time as exporting about this many values of logits.
WORTH_A_PROCESS_VALUES = 10**8
QUEUED_EXPORTS = 2

Blame = Callable[[str], AbstractContextManager]
"""Gives the context in which the outcome of a case is taken: it may record an error, or raise another one."""


@dataclass(frozen=True)
class ExportSetting:
    """What an export needs to know beside the logits."""

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict
    save_probabilities: bool
    num_processes: int


class _Export(NamedTuple):
    number: int
    blame: AbstractContextManager
    future: Future


class CaseExporter(AbstractContextManager):
    """Exports cases while the next ones are predicted.

    Args:
        blame: takes the errors of cases that are written; those of cases that are returned are raised as they are.
        num_waiting: how many exports may wait for a free process before `write` and `convert` block.
        workers_at_once: export in workers from the first case on, not only once there is more work than starting them.
        fail_early: give errors to `blame` at the next export, not only in `results`.
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
        self._pending: list[_Export] = []
        self._results: list[Any] = []

    def write(self, case: str, logits: np.ndarray, properties: dict[str, Any], output: str) -> None:
        """Writes the segmentation of a case, now or soon.

        Args:
            case: its name, for `blame`.
            logits: (K, *spatial) on the grid of the preprocessed image.
            properties: what the preprocessing said about the case.
            output: path without ending.
        """
        setting = self._setting
        future = self._runner(logits, properties)(
            export_prediction_from_logits,
            logits,
            properties,
            setting.configuration_manager,
            setting.plans_manager,
            setting.dataset_json,
            output,
            setting.save_probabilities,
        )
        self._submitted(self._blame(case), future)

    def convert(self, logits: np.ndarray, properties: dict[str, Any]) -> None:
        """Likewise, for a case whose segmentation is to be among the `results`."""
        setting = self._setting
        future = self._runner(logits, properties)(
            convert_predicted_logits_to_segmentation_with_correct_shape,
            logits,
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
        logits: np.ndarray,
        properties: dict[str, Any],
        output: str,
        *,
        shape: Sequence[int],
        dataset_class: type,
    ) -> None:
        """Likewise, on the grid of a cascade's next stage; `shape` and `dataset_class` are those of its cases."""
        setting = self._setting
        future = self._runner(logits, properties)(
            resample_and_save,
            logits,
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
        """Waits for all exports; returns in their order what `convert` gives, and None for written cases."""
        pending, self._pending = self._pending, []
        self._take(pending)
        return self._results

    def _runner(self, logits: np.ndarray, properties: dict[str, Any]) -> Callable[..., Future]:
        """Where the next export runs: in this process or in the pool, which may wait for room first."""
        if self._workers_at_once:
            return self._pool.submit
        self._values_so_far += len(logits) * math.prod(properties["shape_after_cropping_and_before_resampling"])
        return call_here if self._values_so_far < WORTH_A_PROCESS_VALUES else self._pool.submit

    def _submitted(self, blame: AbstractContextManager, future: Future) -> None:
        self._pending.append(_Export(len(self._results), blame, future))
        self._results.append(None)
        if self._fail_early:
            # each is asked once: one that ends in between would be neither finished nor pending, and its error lost
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
        self._pool.__exit__(exc_type, exc, traceback)
