"""Predictions that are missing, or of another grid, in an evaluation (rows 33 and 15): never left out silently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dinov3.utils.atomic_files import read_json, write_json
from nnunetv2.evaluation.evaluate_entry_points import evaluate_folder_entry_point, evaluate_simple_entry_point
from tests.faults.conftest import one_line
from tests.faults.volumes import CASES

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def folders(raw_volumes: Path, tmp_path: Path) -> tuple[Path, Path]:
    """References, and predictions that move the organ by one voxel."""
    references, predictions = raw_volumes / "labelsTr", tmp_path / "predictions"
    predictions.mkdir()
    for case in CASES:
        label = np.asarray(nib.load(references / f"{case}.nii.gz").dataobj)
        nib.save(nib.Nifti1Image(np.roll(label, 1, axis=0), np.eye(4)), predictions / f"{case}.nii.gz")
    write_json({"label_manager": "LabelManager", "configurations": {}}, tmp_path / "plans.json")
    return references, predictions


def evaluate(run: Run, folders: tuple[Path, Path], *more: str, simple: bool = False) -> tuple[int, str]:
    if simple:
        return run(evaluate_simple_entry_point, *folders, "-l", "1", "-np", "1", *more)
    files = ["-djfile", folders[0].parent / "dataset.json", "-pfile", folders[1].parent / "plans.json"]
    return run(evaluate_folder_entry_point, *folders, *files, "-np", "1", *more)


@pytest.mark.parametrize("simple", [False, True], ids=["folder", "simple"])
def test_missing_predictions_are_counted_and_named(
    simple: bool, folders: tuple[Path, Path], run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    summary = folders[1] / "summary.json"
    assert evaluate(run, folders, simple=simple)[0] == 0
    whole = read_json(summary)
    summary.unlink()
    (folders[1] / "case_b.nii.gz").unlink()
    (folders[1] / "case_e.nii.gz").unlink()
    code, stderr = evaluate(run, folders, simple=simple)
    assert code == 4
    one_line(stderr, "4 of 6 cases", "case_b.nii.gz, case_e.nii.gz", "--chill")
    assert sorted(path.name for path in folders[1].iterdir()) == [f"case_{letter}.nii.gz" for letter in "acdf"]

    code, stderr = evaluate(run, folders, "--chill", simple=simple)
    assert code == 0
    assert "over 4 of 6 cases" in caplog.messages[-1]
    chilled = read_json(summary)
    assert set(chilled) == set(whole) == {"foreground_mean", "mean", "metric_per_case"}
    kept = [case for case in whole["metric_per_case"] if Path(case["prediction_file"]).name[5] in "acdf"]
    assert chilled["metric_per_case"] == kept
    dice = [case["metrics"]["1"]["Dice"] for case in kept]
    assert chilled["foreground_mean"]["Dice"] == pytest.approx(sum(dice) / 4, rel=1e-12)


def test_no_prediction_at_all_is_an_error_even_when_chilling(folders: tuple[Path, Path], run: Run) -> None:
    for path in folders[1].iterdir():
        path.unlink()
    code, stderr = evaluate(run, folders, "--chill")
    assert code == 3
    one_line(stderr, "There is no prediction (*.nii.gz)")


@pytest.mark.parametrize("fault", ["origin", "spacing", "direction", "shape"])
def test_a_prediction_of_another_grid_is_refused(fault: str, folders: tuple[Path, Path], run: Run) -> None:
    path = folders[1] / "case_c.nii.gz"
    image = nib.load(path)
    values, affine = np.asarray(image.dataobj).copy(), image.affine.copy()
    if fault == "shape":
        values = values[1:]
    else:
        position, value = {"origin": ((0, 3), 2.0), "spacing": ((2, 2), 1.5), "direction": ((0, 0), -1.0)}[fault]
        affine[position] = value
    path.unlink()
    nib.save(nib.Nifti1Image(values, affine), path)
    code, stderr = evaluate(run, folders)
    assert code == 3
    one_line(stderr, str(path), "Shapes" if fault == "shape" else fault)
    assert not (folders[1] / "summary.json").exists()


def test_a_prediction_that_is_cut_off_is_refused(folders: tuple[Path, Path], run: Run) -> None:
    path = folders[1] / "case_c.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    code, stderr = evaluate(run, folders)
    assert code == 3
    one_line(stderr, str(path))
