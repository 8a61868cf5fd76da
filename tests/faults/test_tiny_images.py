"""Images of few pixels are planned so that a network can be trained, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import (
    plan_and_preprocess_entry,
    plan_experiment_entry,
)
from nnunetv2.run.run_training import run_training_entry
from tests.faults import volumes
from tests.faults.conftest import one_line
from tests.faults.injection import times

pytestmark = pytest.mark.usefixtures("few_draws")

PLAN = ["-d", volumes.NUMBER, "-np", "1", "-npfp", "1", "--no_pbar"]
TRAINED = [
    ("ExperimentPlanner", "nnUNetPlans", "2d", (7, 7, 7), "nnUNetTrainer"),
    ("ExperimentPlanner", "nnUNetPlans", "2d", (5, 200, 1), "nnUNetTrainer"),
    ("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans", "3d_fullres", (7, 7, 7), "nnUNetTrainerNoDeepSupervision"),
    ("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans", "2d", (4, 4, 1), "nnUNetTrainer"),
    ("ExperimentPlanner", "nnUNetPlans", "3d_fullres", (4, 5, 6), "nnUNetTrainer"),
    ("ExperimentPlanner", "nnUNetPlans", "3d_fullres", (2, 7, 7), "nnUNetTrainer"),
    ("ExperimentPlanner", "nnUNetPlans", "3d_fullres", (3, 3, 64), "nnUNetTrainer"),
    ("ExperimentPlanner", "nnUNetPlans", "2d", (11, 7, 1), "nnUNetTrainerNoDeepSupervision"),
    ("ExperimentPlanner", "nnUNetPlans", "2d", (3, 30, 1), "nnUNetTrainer"),
    ("ExperimentPlanner", "nnUNetPlans", "2d", (3, 11, 1), "nnUNetTrainer"),
    ("ExperimentPlanner", "nnUNetPlans", "2d", (1, 1, 8), "nnUNetTrainer"),
    ("ExperimentPlanner", "nnUNetPlans", "3d_fullres", (2, 2, 5), "nnUNetTrainer"),
]


@pytest.mark.parametrize(("planner", "plans", "configuration", "shape", "trainer"), TRAINED[: times(4, len(TRAINED))])
def test_what_is_planned_can_be_trained(
    nnunet_folders: dict[str, Path],
    run: Callable,
    short_training: Callable,
    planner: str,
    plans: str,
    configuration: str,
    shape: tuple[int, int, int],
    trainer: str,
) -> None:
    short_training(epochs=1, iterations=1)
    volumes.write_images(nnunet_folders["nnUNet_raw"] / volumes.DATASET, shape)
    code, said = run(plan_and_preprocess_entry, *PLAN, "-c", configuration, "-pl", planner)
    assert code == 0, said
    words = ["-p", plans, "-tr", trainer, "-device", "cpu"]
    code, said = run(run_training_entry, volumes.NUMBER, configuration, "0", *words)
    assert code == 0, said
    predicted = list(nnunet_folders["nnUNet_results"].glob("*/*/fold_0/validation/*.nii.gz"))
    assert [volumes.shape_of(path) for path in predicted] == [shape] * 2


def test_a_coarse_axis_in_a_small_slice(raw_volumes: Path, nnunet_folders: dict[str, Path], run: Callable) -> None:
    folder = raw_volumes.with_name("Dataset007_Coarse")
    volumes.write_images(folder, (5, 6, 4), (1.0, 2.5, 3.0))  # each axis would be halved alone, and is too short for it
    assert run(plan_and_preprocess_entry, "-d", "7", *PLAN[2:], "--no_pp")[0] == 0
    plans = json.loads((nnunet_folders["nnUNet_preprocessed"] / folder.name / "nnUNetPlans.json").read_text())
    assert all(plan["architecture"]["arch_kwargs"]["n_stages"] > 1 for plan in plans["configurations"].values())


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 3), (3, 2, 1), (1, 1, 3)])
@pytest.mark.parametrize("planner", ["ExperimentPlanner", "nnUNetPlannerResEncM"])
def test_what_no_network_can_be_trained_on_is_refused(
    nnunet_folders: dict[str, Path], run: Callable, shape: tuple[int, int, int], planner: str
) -> None:
    volumes.write_images(nnunet_folders["nnUNet_raw"] / volumes.DATASET, shape)
    code, said = run(plan_and_preprocess_entry, *PLAN, "-pl", planner)
    assert code == 3
    one_line(said, "too small for a network", "median image has")
    folder = nnunet_folders["nnUNet_preprocessed"] / volumes.DATASET
    assert [path.name for path in folder.iterdir()] == ["dataset_fingerprint.json"]


def test_a_configuration_that_cannot_be_trained_is_left_out(
    nnunet_folders: dict[str, Path], run: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    volumes.write_images(nnunet_folders["nnUNet_raw"] / volumes.DATASET, (3, 3, 64))
    assert run(plan_and_preprocess_entry, *PLAN, "--no_pp")[0] == 0
    plans = nnunet_folders["nnUNet_preprocessed"] / volumes.DATASET / "nnUNetPlans.json"
    assert list(json.loads(plans.read_text())["configurations"]) == ["3d_fullres"]
    assert "2d is left out. The median image has 3 x 3 pixels" in caplog.text


def test_a_memory_target_that_no_network_fits_into(preprocessed_volumes: Path, run: Callable) -> None:
    before = (preprocessed_volumes / "nnUNetPlans.json").read_bytes()
    code, said = run(plan_experiment_entry, "-d", volumes.NUMBER, "-gpu_memory_target", "1e-6")
    assert code == 2
    one_line(said, "No network fits", "-gpu_memory_target")
    assert (preprocessed_volumes / "nnUNetPlans.json").read_bytes() == before
