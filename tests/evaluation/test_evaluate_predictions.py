from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2.errors import DataError, PartialError, UsageError
from nnunetv2.evaluation.evaluate_predictions import (
    compute_metrics,
    compute_metrics_on_folder,
    compute_metrics_on_folder2,
    compute_metrics_on_folder_simple,
)
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

BLANK = np.zeros((2, 3, 4), dtype=np.uint8)


def with_labels(*voxels_and_labels) -> np.ndarray:
    segmentation = BLANK.copy()
    for voxels, label in voxels_and_labels:
        segmentation.ravel()[voxels] = label
    return segmentation


def write(path: Path, array: np.ndarray, spacing=(1.0, 1.0, 3.0), origin=(0.0, 0.0, 0.0)) -> None:
    path.parent.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two cases: in `a` label 1 half right and label 2 absent, in `b` both right."""
    reference, prediction = tmp_path / "reference", tmp_path / "prediction"
    write(reference / "a.nii.gz", with_labels(([0, 1], 1)))
    write(prediction / "a.nii.gz", with_labels(([1, 2], 1)))
    write(reference / "b.nii.gz", with_labels(([0, 1, 2, 3], 1), ([9], 2)))
    write(prediction / "b.nii.gz", with_labels(([0, 1, 2, 3], 1), ([9], 2)))
    return reference, prediction


def evaluate(folders: tuple[Path, Path], labels=(1, 2), **kwargs) -> dict:
    reference, prediction = folders
    return compute_metrics_on_folder(
        str(reference), str(prediction), None, SimpleITKIO(), ".nii.gz", labels, num_processes=1, **kwargs
    )


def test_means_are_over_the_cases_in_which_a_label_is_defined(folders):
    summary = evaluate(folders)
    dice_of_a = summary["metric_per_case"][0]["metrics"]
    assert dice_of_a[1]["Dice"] == 0.5 and math.isnan(dice_of_a[2]["Dice"])
    assert summary["mean"][1]["Dice"] == 0.75
    assert summary["mean"][2]["Dice"] == 1.0
    assert summary["mean"][2]["TP"] == 0.5
    assert summary["foreground_mean"]["Dice"] == (0.75 + 1.0) / 2


def test_background_is_not_part_of_the_foreground_mean(folders):
    summary = evaluate(folders, labels=(0, 1))
    assert summary["foreground_mean"] == summary["mean"][1]


def test_a_label_that_is_nowhere_leaves_the_mean_undefined(folders, caplog):
    summary = evaluate(folders, labels=(1, 3))
    assert math.isnan(summary["mean"][3]["Dice"]) and math.isnan(summary["foreground_mean"]["Dice"])
    assert [record.getMessage() for record in caplog.records] == [
        "Label 3 is in none of the references and predictions; its scores are NaN"
    ]


def test_voxels_with_the_ignore_label_take_no_part(folders):
    reference, _ = folders
    write(reference / "a.nii.gz", with_labels(([1], 1), ([0, 2], 3)))
    summary = evaluate(folders, ignore_label=3)
    metrics = summary["metric_per_case"][0]["metrics"][1]
    assert (metrics["Dice"], metrics["TP"], metrics["FP"], metrics["TN"]) == (1.0, 1, 0, BLANK.size - 3)


def test_missing_prediction_is_an_error_that_counts_them(folders):
    _, prediction = folders
    (prediction / "a.nii.gz").unlink()
    with pytest.raises(PartialError, match=r"^1 of 2 cases in .* have a prediction .*; predict a.nii.gz, .*--chill"):
        evaluate(folders, chill=False)
    assert len(evaluate(folders, chill=True)["metric_per_case"]) == 1


def test_prediction_without_reference_is_an_error(folders):
    reference, _ = folders
    (reference / "b.nii.gz").unlink()
    with pytest.raises(DataError, match="1 of 2 predictions in .* have no reference in .*: b.nii.gz"):
        evaluate(folders)


@pytest.mark.parametrize("name", [".0123abcd.tmp.a.nii.gz", "._a.nii.gz"])
def test_hidden_files_are_neither_predictions_nor_references(folders, name):
    expected = evaluate(folders)
    for folder in folders:
        (folder / name).write_bytes(b"half of an image")
    assert evaluate(folders) == expected


def test_no_prediction_at_all_is_an_error(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no prediction \(\*.nii.gz\) in"):
        evaluate((folders[0], tmp_path / "empty"))


def test_other_shape_is_an_error_that_names_the_files(folders):
    _, prediction = folders
    write(prediction / "a.nii.gz", np.zeros((2, 3, 5), dtype=np.uint8))
    with pytest.raises(DataError, match=r"Shapes differ, \(2, 3, 5\) against \(2, 3, 4\) voxels: .*a.nii.gz"):
        evaluate(folders)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": (1.0, 1.1, 3.0)}, r"spacing \[3.0, 1.1.*\] against \[3.0, 1.0, 1.0\] mm"),
        ({"origin": (0.0, 0.0, 0.5)}, r"origin \(0, 0, 0.5\) mm against \(0, 0, 0\) mm"),
    ],
)
def test_other_geometry_is_refused_unless_allowed(folders, change, message):
    reference, prediction = (str(folder / "a.nii.gz") for folder in folders)
    write(Path(prediction), with_labels(([1, 2], 1)), **change)
    with pytest.raises(DataError, match=message):
        compute_metrics(reference, prediction, SimpleITKIO(), [1], allow_geometry_mismatch=False)
    metrics = compute_metrics(reference, prediction, SimpleITKIO(), [1])["metrics"]
    assert metrics[1]["Dice"] == 0.5


def test_values_that_are_no_labels_name_the_files(folders):
    _, prediction = folders
    write(prediction / "a.nii.gz", np.full((2, 3, 4), 0.25, dtype=np.float32))
    with pytest.raises(DataError, match=r"not whole numbers, such as 0.25: prediction .*a.nii.gz and reference"):
        evaluate(folders)


def test_output_file_must_be_json(folders):
    reference, prediction = folders
    with pytest.raises(UsageError, match="summary.txt; it must end with .json"):
        compute_metrics_on_folder(str(reference), str(prediction), "summary.txt", SimpleITKIO(), ".nii.gz", [1])


def test_simple_evaluation_finds_the_format_among_other_files(folders):
    reference, prediction = folders
    (reference / "a_note.txt").write_text("not an image")
    compute_metrics_on_folder_simple(str(reference), str(prediction), [1, 2], num_processes=1)
    summary = json.loads((prediction / "summary.json").read_text())
    assert summary["mean"]["1"]["Dice"] == 0.75


@pytest.mark.oracle
@pytest.mark.parametrize("dataset_id", [901, 902, 903, 904])
def test_summary_equals_upstreams(dataset_id, oracle_recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(oracle_recorded)  # the recorded file names are relative
    (model,) = Path("results").glob(f"Dataset{dataset_id}_*/nnUNetTrainer__nnUNetPlans__*")
    validation = model / "fold_0" / "validation"
    compute_metrics_on_folder2(
        os.path.join("preprocessed", model.parent.name, "gt_segmentations"),
        str(validation),
        str(model / "dataset.json"),
        str(model / "plans.json"),
        str(tmp_path / "summary.json"),
        num_processes=1,
        chill=True,
    )
    assert (tmp_path / "summary.json").read_text() == (validation / "summary.json").read_text()
