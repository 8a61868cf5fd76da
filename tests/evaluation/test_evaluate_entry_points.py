from __future__ import annotations

import json

import numpy as np
import pytest

from nnunetv2.evaluation.evaluate_predictions import evaluate_folder_entry_point, evaluate_simple_entry_point
from tests.evaluation.test_evaluate_predictions import folders, with_labels, write

__all__ = ["folders"]


def test_simple_command_writes_the_summary(folders, tmp_path, caplog):
    caplog.set_level("INFO")
    output = tmp_path / "out.json"
    arguments = [str(folder) for folder in folders] + ["-l", "1", "2", "-np", "1", "-o", str(output)]
    assert evaluate_simple_entry_point(arguments) == 0
    assert json.loads(output.read_text())["foreground_mean"]["Dice"] == 0.875
    assert caplog.messages[-1] == f"Mean Dice 0.87500 over 2 cases; all scores are in {output}"


def test_folder_command_takes_labels_from_the_dataset(folders, tmp_path):
    dataset_json = {"labels": {"background": 0, "organ": 1, "lesion": 2}, "channel_names": {"0": "CT"}}
    (tmp_path / "dataset.json").write_text(json.dumps({**dataset_json, "file_ending": ".nii.gz"}))
    (tmp_path / "plans.json").write_text(json.dumps({"label_manager": "LabelManager", "configurations": {}}))
    files = ["-djfile", str(tmp_path / "dataset.json"), "-pfile", str(tmp_path / "plans.json")]
    assert evaluate_folder_entry_point([*map(str, folders), *files, "-np", "1"]) == 0
    summary = json.loads((folders[1] / "summary.json").read_text())
    assert set(summary["mean"]) == {"1", "2"}


def test_commands_refuse_another_geometry_unless_allowed(folders, capsys):
    reference, prediction = folders
    write(prediction / "a.nii.gz", with_labels(([1], 1)), origin=(5.0, 0.0, 0.0))
    arguments = [str(reference), str(prediction), "-l", "1", "-np", "1"]
    assert evaluate_simple_entry_point(arguments) == 3
    assert "allow it with --allow_geometry_mismatch" in capsys.readouterr().err
    assert evaluate_simple_entry_point([*arguments, "--allow_geometry_mismatch"]) == 0


def test_missing_predictions_are_counted(folders, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    reference, prediction = folders
    write(reference / "c.nii.gz", np.zeros((2, 3, 4), dtype=np.uint8))
    arguments = [str(reference), str(prediction), "-l", "1", "2", "-o", str(tmp_path / "out.json")]
    assert evaluate_simple_entry_point(arguments) == 4
    assert "error: 2 of 3 cases in" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()
    assert evaluate_simple_entry_point([*arguments, "--chill"]) == 0
    assert "Evaluating 2 of 3 cases; there is no prediction of c.nii.gz" in caplog.messages
    assert caplog.messages[-1].startswith("Mean Dice 0.87500 over 2 of 3 cases;")


def test_unknown_flags_are_errors(folders):
    with pytest.raises(SystemExit) as stopped:
        evaluate_simple_entry_point([*map(str, folders), "-l", "1", "--chil1"])
    assert stopped.value.code == 2
