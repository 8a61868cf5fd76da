"""Sharing, exporting and blaming in the validation of whole cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.inference import case_export
from nnunetv2.preprocessing.stored_cases import infer_dataset_class
from nnunetv2.training.validation import full_validation
from nnunetv2.training.validation.full_validation import (
    ValidationSetting,
    export_to_next_stages,
    make_exporter,
    share_of_cases,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.training.tiny_dataset import CASES, DATASET_JSON, tiny_plans, write_tiny_dataset


@pytest.fixture
def setting(nnunet_folders: dict[str, Path]) -> ValidationSetting:
    folder = write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    plans = PlansManager(tiny_plans())
    return ValidationSetting(
        plans_manager=plans,
        configuration_manager=plans.get_configuration("2d"),
        dataset_json=DATASET_JSON,
        preprocessed_folder_base=str(folder),
        model_folder=str(nnunet_folders["nnUNet_results"]),
        output_folder=str(nnunet_folders["nnUNet_results"] / "validation"),
        trainer_name="nnUNetTrainer",
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize(("num_cases", "world_size"), [(5, 1), (45, 2), (103, 4), (3, 4)])
def test_shares_cover_all_cases_and_all_processes_reach_every_barrier(num_cases: int, world_size: int) -> None:
    cases = [str(number) for number in range(num_cases)]
    shares = [share_of_cases(cases, rank, world_size) for rank in range(world_size)]
    assert sorted(sum((own for own, _ in shares), []), key=int) == cases
    assert len({frozenset(barriers) for _, barriers in shares}) == 1
    assert all(max(barriers, default=-1) < len(own) for own, barriers in shares)


def test_barriers_come_every_twenty_cases() -> None:
    assert share_of_cases([str(number) for number in range(103)], 0, 2)[1] == {19, 39}


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DataError("no such label"), DataError, "Validation case liver_7: no such label"),
        (KeyError("spacing"), RuntimeError, "Validation case liver_7 could not be exported: 'spacing'"),
    ],
)
def test_failing_export_names_its_case(
    setting: ValidationSetting,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
    message: str,
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(case_export, "export_prediction_from_logits", fail)
    with make_exporter(setting, num_cases=1) as exporter, pytest.raises(kind, match=message):
        exporter.write("liver_7", np.zeros((3, 1, 40, 40), np.float32), {}, "liver_7")


def test_perfect_logits_give_perfect_scores(setting: ValidationSetting) -> None:
    dataset_class = infer_dataset_class(setting.preprocessed_folder_base + "/nnUNetPlans_2d")
    dataset = dataset_class(setting.preprocessed_folder_base + "/nnUNetPlans_2d", CASES[:2])
    segmentations = iter([dataset.load_case(case)[1][:] for case in CASES[:2]])

    def logits_of_truth(image: torch.Tensor) -> torch.Tensor:
        assert image.shape == (1, 1, 40, 40)
        labels = torch.from_numpy(np.array(next(segmentations)[0], dtype=np.int64))
        return torch.nn.functional.one_hot(labels, 3).permute(3, 0, 1, 2).float()

    lines: list[str] = []
    predictor = SimpleNamespace(predict_sliding_window_return_logits=logits_of_truth)
    seconds = full_validation.predict_validation_cases(predictor, dataset, setting, report=lines.append)
    assert len(seconds) == 2 and min(seconds) > 0
    summary = full_validation.evaluate_validation(setting)
    assert summary["foreground_mean"]["Dice"] == 1.0
    assert [line.split(" left")[0][:28] for line in lines] == [
        "Predicting case_0 (1 of 2)",
        "Predicting case_1 (2 of 2, a",
    ]
    assert sorted(path.name for path in Path(setting.output_folder).iterdir()) == [
        "case_0.png",
        "case_1.png",
        "summary.json",
    ]


def _cascade(setting: ValidationSetting, next_folder: str) -> ValidationSetting:
    plans = tiny_plans()
    plans["configurations"]["2d"]["next_stage"] = "second"
    plans["configurations"]["second"] = {"inherits_from": "2d", "data_identifier": next_folder}
    manager = PlansManager(plans)
    return replace(setting, plans_manager=manager, configuration_manager=manager.get_configuration("2d"))


def _next_stage_of_case_0(setting: ValidationSetting) -> list[str]:
    logits = np.zeros((3, 1, 40, 40), dtype=np.float32)
    logits[2, :, 10:20, 10:20] = 1
    lines: list[str] = []
    properties: dict[str, Any] = {"spacing": [999.0, 1.0, 1.0]}
    with make_exporter(setting, num_cases=1) as exporter:
        export_to_next_stages(exporter, "case_0", logits, properties, setting, lines.append)
    return lines


def test_segmentation_is_handed_to_the_next_stage(setting: ValidationSetting) -> None:
    setting = _cascade(setting, "nnUNetPlans_2d")
    assert _next_stage_of_case_0(setting) == []
    folder = f"{setting.preprocessed_folder_base}/nnUNetPlans_2d"
    previous = f"{setting.model_folder}/predicted_next_stage/second"
    dataset_class = infer_dataset_class(folder)
    dataset = dataset_class(folder, ["case_0"], folder_with_segs_from_previous_stage=previous)
    image, _ = full_validation.load_network_input(dataset, "case_0", setting)
    assert image.shape == (3, 1, 40, 40)
    assert image[1].sum() == 0
    assert image[2].sum() == 100
    assert bool((image[2, 0, 10:20, 10:20] == 1).all())


def test_case_without_input_for_the_next_stage_is_reported(setting: ValidationSetting) -> None:
    lines = _next_stage_of_case_0(_cascade(setting, "not_preprocessed"))
    assert len(lines) == 1
    assert lines[0].startswith("No input for next stage second from case case_0")
