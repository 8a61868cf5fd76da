"""Where exports run, in which order their results come, and who is told of their errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.inference import case_export
from nnunetv2.inference.case_export import CaseExporter, ExportSetting
from tests.inference.tiny_models import tiny_predictor

LOGITS = np.zeros((3, 2, 4, 5), np.float32)
PROPERTIES = {"shape_after_cropping_and_before_resampling": (2, 4, 5)}  # 120 values of logits


class EndsWhileLookedAt(Future):
    """Is done only from the second question on."""

    questions = 0

    def done(self) -> bool:
        self.questions += 1
        return self.questions > 1


@pytest.fixture
def setting() -> ExportSetting:
    predictor = tiny_predictor()
    managers = (predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json)
    return ExportSetting(*managers, save_probabilities=False, num_processes=0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces exports by ones that return or raise what stands in place of the output; notes where each ran."""
    places: list[str] = []

    def noting(place: str, call: Callable[..., Future]) -> Callable[..., Future]:
        def run(self: Any, *args: Any) -> Future:
            places.append(place)
            return call(self, *args)

        return run

    def export(*args: Any) -> Any:
        if isinstance(args[5], Exception):
            raise args[5]

    monkeypatch.setattr(case_export, "export_prediction_from_logits", export)
    convert = "convert_predicted_logits_to_segmentation_with_correct_shape"
    monkeypatch.setattr(case_export, convert, lambda *args: args[4]["name"])
    monkeypatch.setattr(case_export.WorkerPool, "submit", noting("pool", case_export.WorkerPool.submit))
    monkeypatch.setattr(case_export, "call_here", noting("here", case_export.call_here))
    return places


@contextmanager
def named(case: str) -> Iterator[None]:
    try:
        yield
    except DataError as err:
        raise DataError(f"{case}: {err}") from err


def test_results_come_in_order_and_none_stands_for_files(setting: ExportSetting, runs: list[str]) -> None:
    with CaseExporter(setting, named) as exporter:
        exporter.convert(LOGITS, {**PROPERTIES, "name": "first"})
        exporter.write("second", LOGITS, PROPERTIES, "path")
        exporter.convert(LOGITS, {**PROPERTIES, "name": "third"})
        assert exporter.results() == ["first", None, "third"]


def test_errors_wait_for_the_results_unless_they_are_wanted_early(setting: ExportSetting, runs: list[str]) -> None:
    with CaseExporter(setting, named) as exporter:
        exporter.write("liver_7", LOGITS, PROPERTIES, DataError("no such label"))
        with pytest.raises(DataError, match="^liver_7: no such label$"):
            exporter.results()
    with CaseExporter(setting, named, fail_early=True) as exporter, pytest.raises(DataError, match="^liver_7: no such"):
        exporter.write("liver_7", LOGITS, PROPERTIES, DataError("no such label"))


def test_workers_are_used_once_there_is_enough_work(
    setting: ExportSetting, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_export, "WORTH_A_PROCESS_VALUES", 300)
    for workers_at_once in (False, True):
        with CaseExporter(setting, named, workers_at_once=workers_at_once) as exporter:
            for case in "abc":
                exporter.write(case, LOGITS, PROPERTIES, "path")
    assert runs == ["here", "here", "pool", "pool", "pool", "pool"]


def test_files_are_written_in_a_thread_while_a_gpu_computes(
    setting: ExportSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, exported = threading.Semaphore(0), []

    def export(*args: Any) -> None:
        assert free.acquire(timeout=60)
        exported.append(args[5])
        if args[5] == "bad":
            raise DataError("disk is full")

    monkeypatch.setattr(case_export, "export_prediction_from_logits", export)
    device = replace(setting, device=torch.device("cpu"))
    with CaseExporter(device, named) as exporter:
        for output in ("first", "bad"):
            exporter.write(output, LOGITS, PROPERTIES, output)
        assert exported == []  # nobody waits
        free.release(3)
        exporter.write("third", LOGITS, PROPERTIES, "third")
        with pytest.raises(DataError, match="^bad: disk is full$"):
            exporter.results()
    assert exported == ["first", "bad", "third"]


def test_error_of_an_export_that_ends_between_two_looks_is_not_lost(
    setting: ExportSetting, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = EndsWhileLookedAt()
    future.set_exception(DataError("no such label"))
    monkeypatch.setattr(case_export.WorkerPool, "submit", lambda *args: future)
    with CaseExporter(setting, named, workers_at_once=True, fail_early=True) as exporter:
        exporter.write("liver_7", LOGITS, PROPERTIES, "path")
        with pytest.raises(DataError, match="liver_7: no such label"):
            exporter.results()
