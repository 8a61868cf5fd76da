"""The validations of all folds in one folder; the models' own folders are never replaced."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.evaluation.accumulate_cv_results import accumulate_cv_results
from nnunetv2.evaluation.crossval_folds import ground_truth_folder, training_command
from tests.recorded.crossval_cases import dataset_name, write_model, write_references


@pytest.fixture
def model(nnunet_folders: dict[str, Path]) -> Path:
    """A trained model, validated without probabilities, and references."""
    write_references(nnunet_folders, "labels")
    return write_model(nnunet_folders["nnUNet_results"], "labels", 0, "2d", npz=False)


@pytest.mark.slow
def test_an_older_result_stays_until_the_new_one_is_complete(model, nnunet_folders, monkeypatch):
    merged = model / "merged"
    accumulate_cv_results(model, merged, (0, 1), 1)
    (merged / "postprocessing.pkl").write_bytes(b"of these predictions")
    before = sorted(path.name for path in merged.iterdir())
    references = nnunet_folders["nnUNet_preprocessed"] / dataset_name("labels") / "gt_segmentations"
    (references / "case_5.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 of 6 predictions in .* have no reference in .*: case_5.nii.gz"):
        accumulate_cv_results(model, merged, (0, 1, 2), 1)
    assert sorted(path.name for path in merged.iterdir()) == before
    assert sorted(path.name for path in model.iterdir() if path.name.startswith(".")) == []
    accumulate_cv_results(model, merged, (0, 1), 1)
    assert not (merged / "postprocessing.pkl").exists()  # it was determined on predictions that were replaced


@pytest.mark.parametrize("target", [".", "..", "fold_0", "fold_1/validation"])
def test_folders_of_the_model_are_no_output(target, model):
    with pytest.raises(UsageError, match=r"whose content would be replaced"):
        accumulate_cv_results(model, model / target, (0, 1, 2), 1)
    assert (model / "fold_1" / "validation" / "case_1.nii.gz").is_file()
    with pytest.raises(UsageError, match="No fold was given"):
        accumulate_cv_results(model, model / "merged", (), 1)


def test_references_are_those_of_the_preprocessed_dataset_else_the_raw_one(model, nnunet_folders, monkeypatch):
    name = dataset_name("labels")
    preprocessed = nnunet_folders["nnUNet_preprocessed"] / name / "gt_segmentations"
    raw = nnunet_folders["nnUNet_raw"] / name / "labelsTr"
    assert ground_truth_folder(name) == str(preprocessed)
    preprocessed.rename(preprocessed.with_name("elsewhere"))
    with pytest.raises(DataError, match=r"there is no .*gt_segmentations nor .*labelsTr; preprocess the dataset"):
        ground_truth_folder(name)
    raw.mkdir()
    assert ground_truth_folder(name) == str(raw)
    monkeypatch.delenv("nnUNet_preprocessed")
    assert ground_truth_folder(name) == str(raw)
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(DataError, match="nnUNet_preprocessed and nnUNet_raw are not set"):
        ground_truth_folder(name)


def test_models_outside_the_results_get_a_command_to_fill_in(tmp_path):
    assert training_command(tmp_path / "model", 3, "--npz") == (
        "nnUNetv2_train DATASET CONFIGURATION 3 -tr TRAINER -p PLANS --npz"
    )


def test_commands_quote_what_the_shell_would_take_apart(tmp_path):
    fold = tmp_path / "Dataset005_Häm Test" / "nnUNetTrainer_m2f__P__2d" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "m2f_config.yaml").touch()
    command = training_command(fold.parent, 3, "--npz")
    words = ["nnUNetv2_train_m2f", "Dataset005_Häm Test", "2d", "3", "-tr", "nnUNetTrainer_m2f", "-p", "P", "--npz"]
    assert shlex.split(command) == [*words, "--m2f_config", str(fold / "m2f_config.yaml")]


@pytest.mark.slow
def test_a_kept_result_is_scored_again_only_if_cases_were_added(model):
    merged = model / "merged"
    accumulate_cv_results(model, merged, (0,), 1)
    summary = merged / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "note": "mine"}))
    accumulate_cv_results(model, merged, (0,), 1, overwrite=False)
    assert json.loads(summary.read_text())["note"] == "mine"
    accumulate_cv_results(model, merged, (0, 1), 1, overwrite=False)
    content = json.loads(summary.read_text())
    assert "note" not in content and len(content["metric_per_case"]) == 4
    summary.unlink()
    accumulate_cv_results(model, merged, (0, 1), 1, overwrite=False)
    assert summary.is_file()
