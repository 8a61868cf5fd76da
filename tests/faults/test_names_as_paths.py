"""Row 26 and beyond the list, 1: no name from a file or a command line leads out of nnU-Net's folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunetv2.errors import DataError
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_experiment_entry, preprocess_entry
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import (
    entry_point_move_plans_between_datasets,
)
from nnunetv2.inference.predict_entry_points import predict_entry_point, predict_entry_point_modelfolder
from nnunetv2.model_sharing.entry_points import export_pretrained_model_entry
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.utilities.file_names import check_name
from tests.faults import volumes
from tests.faults.conftest import one_line
from tests.inference.tiny_models import IMAGES, model_folder
from tests.training.tiny_dataset import NAME

Run = Callable[..., tuple[int, str]]

NASTY = [
    "../../escape",
    "..\\..\\escape",
    "/tmp/escape",
    "a/../../../escape",
    "..",
    ".",
    "",
    " . ",
    "a\0b",
    "a\nb",
    "x" * 300,
    "C:escape",
    "\ud800",
    None,
    7,
    ["a"],
]


@pytest.mark.parametrize("name", NASTY)
def test_what_no_name_may_be(name: object) -> None:
    with pytest.raises(DataError, match="cannot be the name of a thing: it becomes a file name"):
        check_name(name, "a thing")


@pytest.mark.parametrize(
    "name", ["Dataset004_Größe", "Dataset005_肝臓", "v1.2 (new)", "ptPlans__cnn____Spacing__1.00", "‥x"]
)
def test_names_of_all_languages_are_kept(name: str) -> None:
    assert check_name(name, "a thing") == name


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


def with_entry(content: dict[str, Any], way: str, value: object) -> dict[str, Any]:
    *parents, last = way.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


PLAN_ENTRIES = ["plans_name", "dataset_name", "configurations.2d.data_identifier", "configurations.2d.previous_stage"]


@pytest.mark.parametrize("way", PLAN_ENTRIES)
def test_plans_do_not_lead_training_out(
    way: str, tiny_images: Path, short_training: object, run: Run, tmp_path: Path
) -> None:
    path = tiny_images / "nnUNetPlans.json"
    path.write_text(json.dumps(with_entry(json.loads(path.read_text()), way, "../../escape")))
    before = files_below(tmp_path)
    code, stderr = run(run_training_entry, NAME, "2d", "0", "-device", "cpu")
    assert code == 3
    one_line(stderr, "'../../escape' cannot be the name of", way.rpartition(".")[2].removeprefix("previous_stage"))
    assert files_below(tmp_path) == before


def test_configurations_do_not_lead_out(tiny_images: Path, run: Run, tmp_path: Path) -> None:
    path = tiny_images / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["../../escape"] = {"inherits_from": "2d"}
    path.write_text(json.dumps(plans))
    before = files_below(tmp_path)
    code, stderr = run(run_training_entry, NAME, "../../escape", "0", "-device", "cpu")
    assert code == 2
    one_line(stderr, "'../../escape' cannot be the name of a configuration")
    assert files_below(tmp_path) == before


def test_references_are_no_folder_for_cases(preprocessed_volumes: Path, run: Run) -> None:
    path = preprocessed_volumes / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    path.write_text(json.dumps(with_entry(plans, "configurations.3d_fullres.data_identifier", "gt_segmentations")))
    before = files_below(preprocessed_volumes / "gt_segmentations")
    code, stderr = run(preprocess_entry, "-d", volumes.NUMBER, "-c", "3d_fullres", "-np", "1")
    assert code == 3
    one_line(stderr, "'gt_segmentations', the folder of the references")
    assert files_below(preprocessed_volumes / "gt_segmentations") == before


@pytest.mark.parametrize("ending", ["./../../escape.nii.gz", "/../../../escape.nii.gz", "\0.nii.gz", [".nii.gz"]])
def test_file_endings_do_not_lead_prediction_out(ending: object, run: Run, tmp_path: Path) -> None:
    model, output = tmp_path / "nnUNetTrainer__nnUNetPlans__2d", tmp_path / "inner" / "output"
    shutil.copytree(model_folder("2d"), model)
    description = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps({**description, "file_ending": ending}))
    before = files_below(tmp_path)
    words = ["-i", IMAGES, "-o", output, "-m", model, "-f", "0", "-device", "cpu"]
    code, stderr = run(predict_entry_point_modelfolder, *words)
    assert code == 3
    one_line(stderr, "file_ending")
    assert files_below(tmp_path) == before


def test_cases_in_splits_do_not_lead_out(tiny_images: Path, short_training: object, run: Run) -> None:
    splits = [{"train": ["case_0"], "val": ["../../escape"]}]
    (tiny_images / "splits_final.json").write_text(json.dumps(splits))
    code, stderr = run(run_training_entry, NAME, "2d", "0", "-device", "cpu")
    assert code == 3
    one_line(stderr, "'../../escape' cannot be the name of a case")


def test_command_lines_do_not_lead_out(preprocessed_volumes: Path, tmp_path: Path, run: Run) -> None:
    escape = "../../escape"
    number = volumes.NUMBER
    attempts = [
        (run_training_entry, number, "3d_fullres", "0", "-p", escape, "-device", "cpu"),
        (run_training_entry, f"Dataset951_x/{escape}", "3d_fullres", "0", "-device", "cpu"),
        (preprocess_entry, "-d", number, "-plans_name", escape),
        (plan_experiment_entry, "-d", number, "-overwrite_plans_name", escape),
        (entry_point_move_plans_between_datasets, "-s", number, "-t", number, "-sp", escape, "-tp", "b"),
        (entry_point_move_plans_between_datasets, "-s", number, "-t", number, "-sp", "nnUNetPlans", "-tp", escape),
        *(
            (predict_entry_point, "-d", number, "-i", tmp_path, "-o", tmp_path / "o", "-c", "2d", flag, escape)
            for flag in ("-c", "-p", "-tr")
        ),
        (export_pretrained_model_entry, "-d", number, "-o", tmp_path / "m.zip", "-p", escape),
        (export_pretrained_model_entry, "-d", number, "-o", tmp_path / "m.zip", "-tr", escape),
    ]
    before = files_below(tmp_path)
    for entry, *words in attempts:
        code, stderr = run(entry, *words)
        assert code == 2, (words, stderr)
        one_line(stderr, "cannot be the name of")
    assert files_below(tmp_path) == before
