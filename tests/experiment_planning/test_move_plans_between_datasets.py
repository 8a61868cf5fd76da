from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import (
    entry_point_move_plans_between_datasets,
    move_plans_between_datasets,
)
from tests.experiment_planning.test_experiment_planner import RECORDED, prepare

SOURCE, TARGET = "Dataset018_Planned", "Dataset019_Other"


@pytest.fixture
def folders(nnunet_folders: dict[str, Path]) -> dict[str, Path]:
    """A planned dataset of .nii.gz, and a raw one of .png."""
    source, target = RECORDED["large_anisotropic_ct"], RECORDED["photographs"]
    preprocessed = prepare(nnunet_folders, SOURCE, source["dataset_json"], source["fingerprint"])
    for plans in source["plans"].values():
        (preprocessed / f"{plans['plans_name']}.json").write_text(json.dumps(plans))
    shutil.rmtree(prepare(nnunet_folders, TARGET, target["dataset_json"], target["fingerprint"]))
    return nnunet_folders


def _moved(folders: dict[str, Path], name: str) -> dict:
    return json.loads((folders["nnUNet_preprocessed"] / TARGET / f"{name}.json").read_text())


def test_names_and_reader_are_the_targets_and_all_else_is_the_sources(folders, caplog):
    move_plans_between_datasets(18, 19, "nnUNetPlans", "fromCT")
    plans = RECORDED["large_anisotropic_ct"]["plans"]["ExperimentPlanner"]
    expected = json.loads(json.dumps(plans).replace("nnUNetPlans", "fromCT").replace(SOURCE, TARGET))
    assert plans["image_reader_writer"] == "SimpleITKIO"
    assert _moved(folders, "fromCT") == {**expected, "image_reader_writer": "NaturalImage2DIO"}
    assert "has 3 channels, but configuration 2d of the plans normalises 1" in caplog.text
    copied = folders["nnUNet_preprocessed"] / TARGET / "dataset.json"
    assert json.loads(copied.read_text()) == RECORDED["photographs"]["dataset_json"]


def test_folders_shared_with_other_plans_are_not_shared_any_more(folders):
    move_plans_between_datasets(SOURCE, TARGET, "nnUNetResEncUNetLPlans", "fromCT")
    folders_of_cases = {
        name: entry.get("data_identifier") for name, entry in _moved(folders, "fromCT")["configurations"].items()
    }
    assert folders_of_cases == {
        "2d": "fromCT_nnUNetPlans_2d",
        "3d_lowres": "fromCT_3d_lowres",
        "3d_fullres": "fromCT_nnUNetPlans_3d_fullres",
        "3d_cascade_fullres": None,
    }


def test_command_keeps_the_name_by_default_and_warns_of_what_it_replaces(folders, caplog):
    arguments = ["-s", "18", "-t", "19", "-sp", "nnUNetPlans"]
    assert entry_point_move_plans_between_datasets(arguments) == 0
    moved = _moved(folders, "nnUNetPlans")
    assert moved["plans_name"] == "nnUNetPlans"
    assert moved["configurations"]["2d"]["data_identifier"] == "nnUNetPlans_2d"
    assert "replaced" not in caplog.text
    assert entry_point_move_plans_between_datasets(arguments) == 0
    assert "nnUNetPlans.json is replaced" in caplog.text
    (folders["nnUNet_preprocessed"] / TARGET / "nnUNetPlans_2d").mkdir()
    plans = folders["nnUNet_preprocessed"] / SOURCE / "nnUNetPlans.json"
    plans.write_text(plans.read_text().replace("CTNormalization", "ZScoreNormalization"))
    assert entry_point_move_plans_between_datasets(arguments) == 0
    assert "run nnUNetv2_preprocess -d 19 -plans_name nnUNetPlans -c 2d before you train" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((18, 18, "nnUNetPlans"), "would be copied onto itself"),
        ((18, 19, "nnUNetPlan"), r"There is no .*nnUNetPlan\.json \(plans there: nnUNetPlans, nnUNetResEncUNetLPlans"),
        ((18, 19, "nnUNetPlans", "x/y"), "'x/y' cannot be the name of plans"),
        ((19, 18, "nnUNetPlans"), "There is no folder .*; run nnUNetv2_plan_and_preprocess"),
        ((18, "Dataset020_Nowhere", "nnUNetPlans"), "can only go to a dataset with raw data"),
    ],
)
def test_what_cannot_be_moved(folders, arguments, message):
    with pytest.raises(UsageError, match=message):
        move_plans_between_datasets(*arguments)
    assert not (folders["nnUNet_preprocessed"] / TARGET).exists()


def test_target_without_images(folders):
    shutil.rmtree(folders["nnUNet_raw"] / TARGET / "imagesTr")
    (folders["nnUNet_raw"] / TARGET / "imagesTr").mkdir()
    with pytest.raises(UsageError, match="has no training images"):
        move_plans_between_datasets(18, 19, "nnUNetPlans")
