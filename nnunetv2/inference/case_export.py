"""Turn logits into results, in this process while that is quick and then in others, and collect the results."""

from __future__ import annotations

import math
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from nnunetv2.inference.case_preprocessing import Item
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.processes.case_failures import CaseFailures
from nnunetv2.utilities.processes.worker_pool import WorkerPool, call_here, result_of

# Starting a process costs as much time as exporting about this many values of logits.
WORTH_A_PROCESS_VALUES = 10**8
QUEUED_EXPORTS = 2


@dataclass(frozen=True)
class ExportSetting:
    """What an export needs to know beside the logits."""

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict
    save_probabilities: bool
    num_processes: int


class CaseExporter(AbstractContextManager):
    """Exports cases one after the other, without starting processes for less work than starting them would be.

    Args:
        failures: learns about cases that fail.
    """

    def __init__(self, setting: ExportSetting, failures: CaseFailures) -> None:
        self._setting = setting
        self._label_manager = setting.plans_manager.get_label_manager(setting.dataset_json)
        self._pool = WorkerPool(setting.num_processes, QUEUED_EXPORTS)
        self._failures = failures
        self._values_so_far = 0
        self._futures: list[tuple[str, bool, Future]] = []

    def submit(self, case: str, item: Item, logits: np.ndarray) -> None:
        """Exports a case now or soon; waits first while too many wait.

        Args:
            case: name for messages.
            item: the preprocessed case.
            logits: (K, *spatial).
        """
        properties, plans = item["data_properties"], self._setting.plans_manager
        configuration, save_probabilities = self._setting.configuration_manager, self._setting.save_probabilities
        self._values_so_far += len(logits) * math.prod(properties["shape_after_cropping_and_before_resampling"])
        run = call_here if self._values_so_far < WORTH_A_PROCESS_VALUES else self._pool.submit
        if item["ofile"] is None:
            convert = convert_predicted_logits_to_segmentation_with_correct_shape
            future = run(convert, logits, plans, configuration, self._label_manager, properties, save_probabilities)
        else:
            export, dataset_json = export_prediction_from_logits, self._setting.dataset_json
            future = run(
                export, logits, properties, configuration, plans, dataset_json, item["ofile"], save_probabilities
            )
        self._futures.append((case, item["ofile"] is not None, future))

    def results(self) -> list[Any]:
        """Waits for all cases; returns what their exports returned, in the order of submission.

        The error of a case that is to be written is recorded; that of one that is to be returned is raised.
        """
        collected = []
        for case, is_written, future in self._futures:
            with self._failures.of(case) if is_written else nullcontext():
                collected.append(result_of(future))
        return collected

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.__exit__(exc_type, exc, traceback)
