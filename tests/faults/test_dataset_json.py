"""A dataset.json of another form is refused by every command before it computes anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetv2.evaluation.evaluate_entry_points import evaluate_folder_entry_point
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import (
    extract_fingerprint_entry,
    plan_experiment_entry,
    preprocess_entry,
)
from nnunetv2.run.run_training import run_training_entry
from tests.faults import volumes
from tests.faults.conftest import one_line

Run = Callable[..., tuple[int, str]]

LOSSY = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [2, 1],
}
WRONG = {
    "reversed channels": ({"channel_names": {"MRI": "0"}}, 'write {"0": "MRI"}'),
    "number as text": ({"numTraining": "6"}, "without quotes: 6"),
    "lost region": (LOSSY, "loses core, even of a perfect prediction; write [1, 2]"),
    "ending without dot": ({"file_ending": "nii.gz"}, "with its dot"),
}


def change(path: Path, changes: dict, encoding: str = "utf-8") -> None:
    content = {**json.loads(path.read_text()), **changes}
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))


@pytest.mark.parametrize("kind", WRONG)
def test_every_command_refuses(
    kind: str, preprocessed_volumes: Path, nnunet_folders: dict[str, Path], run: Run
) -> None:
    changes, message = WRONG[kind]
    raw = nnunet_folders["nnUNet_raw"] / volumes.DATASET
    for folder in (raw, preprocessed_volumes):
        change(folder / "dataset.json", changes)
    before = {path: path.stat().st_mtime_ns for path in preprocessed_volumes.rglob("*")}
    for entry, *words in (
        (extract_fingerprint_entry, "-d", volumes.NUMBER, "--verify_dataset_integrity", "-np", "1"),
        (extract_fingerprint_entry, "-d", volumes.NUMBER, "-np", "1"),
        (plan_experiment_entry, "-d", volumes.NUMBER),
        (preprocess_entry, "-d", volumes.NUMBER, "-c", "3d_fullres", "-np", "1"),
        (run_training_entry, volumes.NUMBER, "3d_fullres", "0", "-device", "cpu"),
    ):
        code, stderr = run(entry, *words)
        assert code == 3, (entry, stderr)
        one_line(stderr, "dataset.json", message)
    assert {path: path.stat().st_mtime_ns for path in preprocessed_volumes.rglob("*")} == before
    assert not list(nnunet_folders["nnUNet_results"].rglob("*"))


def test_ending_that_no_file_has_is_named(raw_volumes: Path, run: Run) -> None:
    change(raw_volumes / "dataset.json", {"file_ending": ".mha"})
    code, stderr = run(extract_fingerprint_entry, "-d", volumes.NUMBER, "-np", "1")
    assert code == 3
    one_line(stderr, "There is no training case in", "case_0000.mha (file_ending in dataset.json)")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_windows_are_read(
    encoding: str, preprocessed_volumes: Path, nnunet_folders: dict[str, Path], run: Run
) -> None:
    raw = nnunet_folders["nnUNet_raw"] / volumes.DATASET
    change(raw / "dataset.json", {"description": "Größe"}, encoding)
    code, stderr = run(plan_experiment_entry, "-d", volumes.NUMBER)
    assert code == 0, stderr
    labels = raw / "labelsTr"
    words = [labels, labels, "-djfile", preprocessed_volumes / "dataset.json"]
    code, stderr = run(evaluate_folder_entry_point, *words, "-pfile", preprocessed_volumes / "nnUNetPlans.json")
    assert code == 0, stderr


def test_other_encodings_are_named(raw_volumes: Path, run: Run) -> None:
    change(raw_volumes / "dataset.json", {"description": "Größe"}, "cp1252")
    code, stderr = run(extract_fingerprint_entry, "-d", volumes.NUMBER, "-np", "1")
    assert code == 3
    one_line(stderr, "dataset.json is not in UTF-8", "iconv -f WINDOWS-1252 -t UTF-8")
