"""Cases that belong together in both halves of a fold (row 18): overlaps, unknown cases, patients, duplicates."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import (
    plan_and_preprocess_entry,
    plan_experiment_entry,
)
from nnunetv2.run.run_training import run_training_entry
from tests.faults import volumes
from tests.faults.conftest import one_line
from tests.training.tiny_dataset import CASES as IDENTIFIERS

pytestmark = pytest.mark.usefixtures("few_draws")

TRAIN = ["777", "2d", "0", "-device", "cpu"]
LOW, HIGH = IDENTIFIERS[:3], IDENTIFIERS[3:]


def write_splits(folder: Path, train: list[str], val: list[str]) -> None:
    (folder / "splits_final.json").write_text(json.dumps([{"train": train, "val": val}]))


def nothing_written(folders: dict[str, Path]) -> bool:
    return not [path for path in folders["nnUNet_results"].rglob("*") if path.is_file() and path.suffix == ".pth"]


def test_overlap(tiny_images: Path, run: Callable, nnunet_folders: dict[str, Path], short_training: Callable) -> None:
    write_splits(tiny_images, IDENTIFIERS, HIGH)
    code, said = run(run_training_entry, *TRAIN)
    assert code == 3
    one_line(said, "both for training and for validation", HIGH[0], "--allow_leak")
    assert nothing_written(nnunet_folders)
    short_training(epochs=1, iterations=1)
    assert run(run_training_entry, *TRAIN, "--allow_leak")[0] == 0


def test_unknown_case(tiny_images: Path, run: Callable, nnunet_folders: dict[str, Path]) -> None:
    write_splits(tiny_images, [*LOW, "nobody"], HIGH)
    for flags in ([], ["--allow_leak"]):  # nothing could be read
        code, said = run(run_training_entry, *TRAIN, *flags)
        assert code == 3
        one_line(said, "not preprocessed", "nobody")
    assert nothing_written(nnunet_folders)


def test_group_in_both_halves(tiny_images: Path, run: Callable, nnunet_folders: dict[str, Path]) -> None:
    write_splits(tiny_images, LOW, HIGH)
    code, said = run(run_training_entry, *TRAIN, "--group_by", "^(.)")
    assert code == 3
    one_line(said, "cases of one group", LOW[0], HIGH[0], "--allow_leak")
    assert nothing_written(nnunet_folders)


def test_duplicates_in_both_halves(
    raw_volumes: Path, nnunet_folders: dict[str, Path], run: Callable, short_training: Callable
) -> None:
    short_training(epochs=1, iterations=1)
    images = raw_volumes / "imagesTr"
    image = nib.load(images / "case_a_0000.nii.gz")  # stored in another way: other bytes, equal content
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj, np.float64), image.affine), images / "case_b_0000.nii.gz")
    words = ["-d", volumes.NUMBER, "-c", "3d_fullres", "-np", "1", "-npfp", "1", "--no_pbar"]
    assert run(plan_and_preprocess_entry, *words)[0] == 0
    folder = nnunet_folders["nnUNet_preprocessed"] / volumes.DATASET
    write_splits(folder, [f"case_{letter}" for letter in "acde"], ["case_b", "case_f"])
    code, said = run(run_training_entry, volumes.NUMBER, "3d_fullres", "0", "-device", "cpu")
    assert code == 3
    one_line(said, "equal images", "case_a", "case_b", "--allow_leak")
    (folder / "splits_final.json").unlink()
    assert run(plan_experiment_entry, "-d", volumes.NUMBER, "--num_folds", "3")[0] == 0
    for split in json.loads((folder / "splits_final.json").read_text()):
        assert {"case_a", "case_b"} <= set(split["train"]) or {"case_a", "case_b"} <= set(split["val"])


def test_patients_are_recognised_and_kept_together(
    raw_volumes: Path, nnunet_folders: dict[str, Path], run: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    for number, case in enumerate(volumes.CASES):
        name = f"patient_{number // 2:02d}_visit{number % 2}"
        (raw_volumes / "imagesTr" / f"{case}_0000.nii.gz").rename(raw_volumes / "imagesTr" / f"{name}_0000.nii.gz")
        (raw_volumes / "labelsTr" / f"{case}.nii.gz").rename(raw_volumes / "labelsTr" / f"{name}.nii.gz")
    plan = ["-d", volumes.NUMBER, "--num_folds", "3"]
    caplog.set_level(logging.WARNING)
    assert run(plan_and_preprocess_entry, *plan, "--no_pp", "-npfp", "1", "--no_pbar")[0] == 0
    (warning,) = [record.message for record in caplog.records if "one patient" in record.message]
    assert "--group_by" in warning
    splits = nnunet_folders["nnUNet_preprocessed"] / volumes.DATASET / "splits_final.json"
    code, said = run(plan_experiment_entry, *plan, "--group_by", "^(patient_[0-9]+)")
    assert code == 3
    one_line(said, "cases of one group", "delete the file")
    splits.unlink()
    caplog.clear()
    assert run(plan_experiment_entry, *plan, "--group_by", "^(patient_[0-9]+)")[0] == 0
    assert "one patient" not in caplog.text
    for split in json.loads(splits.read_text()):
        assert {case[:10] for case in split["train"]}.isdisjoint(case[:10] for case in split["val"])


@pytest.mark.parametrize("flags", [["--group_by", "["], ["--group_by", "xyz"], ["--num_folds", "1"]])
def test_wrong_rules(tiny_images: Path, run: Callable, flags: list[str]) -> None:
    code, said = run(run_training_entry, *TRAIN, *flags)
    assert code == 2
    one_line(said, *flags)
    assert not (tiny_images / "splits_final.json").exists()


def test_other_numbers_of_folds(tiny_images: Path, run: Callable, short_training: Callable) -> None:
    short_training(epochs=1, iterations=1)
    assert run(run_training_entry, "777", "2d", "1", "-device", "cpu", "--num_folds", "2")[0] == 0
    assert len(json.loads((tiny_images / "splits_final.json").read_text())) == 2
    code, said = run(run_training_entry, "777", "2d", "2", "-device", "cpu")
    assert code == 2
    one_line(said, "no fold 2", "0, 1 and all")
    code, said = run(run_training_entry, *TRAIN, "--num_folds", "3")
    assert code == 2
    one_line(said, "--num_folds is 3", "has 2 folds")
