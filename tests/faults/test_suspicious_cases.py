"""Labels that dataset.json does not name (row 16); constant, duplicate, empty and orphaned cases (row 17)."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import (
    extract_fingerprint_entry,
    plan_and_preprocess_entry,
    preprocess_entry,
)
from tests.faults import volumes
from tests.faults.conftest import one_line

pytestmark = pytest.mark.usefixtures("few_draws")

FINGERPRINT = ["-d", volumes.NUMBER, "-np", "1", "--no_pbar"]
PLAN = ["-d", volumes.NUMBER, "-c", "3d_fullres", "-np", "1", "-npfp", "1", "--no_pbar"]
VERIFY = "--verify_dataset_integrity"


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)


def with_value(value: float, dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(dtype)
        array[0, :3, 0] = value
        return array

    return change


@pytest.mark.parametrize(("value", "dtype"), [(7, np.uint8), (0.5, np.float32), (-1, np.int16)])
def test_wrong_labels_without_verification(
    raw_volumes: Path, run: Callable, caplog: pytest.LogCaptureFixture, value: float, dtype: type
) -> None:
    for case in ("case_b", "case_d"):
        rewrite(raw_volumes / "labelsTr" / f"{case}.nii.gz", with_value(value, dtype))
    code, said = run(extract_fingerprint_entry, *FINGERPRINT)
    assert code == 3
    one_line(said, "2 of 6 label files", f"{value:g} (3 voxels)", "case_b.nii.gz", "[0, 1]", "relabel these voxels")
    counted = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert [f"{case}.nii.gz" in line for case, line in zip(("case_b", "case_d"), counted, strict=True)] == [True, True]
    assert run(extract_fingerprint_entry, *FINGERPRINT, VERIFY)[0] == 3


def test_labels_that_became_wrong_after_planning(
    preprocessed_volumes: Path, raw_volumes_of: Path, run: Callable
) -> None:
    before = {path.name for path in (preprocessed_volumes / "nnUNetPlans_3d_fullres").iterdir()}
    rewrite(raw_volumes_of / "labelsTr" / "case_e.nii.gz", with_value(3, np.uint8))
    code, said = run(preprocess_entry, "-d", volumes.NUMBER, "-c", "3d_fullres", "-np", "1", "--no_pbar")
    assert code == 3
    one_line(said, "case_e", "3 (3 voxels)")
    assert {path.name for path in (preprocessed_volumes / "nnUNetPlans_3d_fullres").iterdir()} == before


@pytest.fixture
def raw_volumes_of(preprocessed_volumes: Path, nnunet_folders: dict[str, Path]) -> Path:
    return nnunet_folders["nnUNet_raw"] / volumes.DATASET


@pytest.mark.parametrize("flags", [[], [VERIFY]])
def test_each_suspicious_case_is_reported_once(
    raw_volumes: Path,
    nnunet_folders: dict[str, Path],
    run: Callable,
    caplog: pytest.LogCaptureFixture,
    flags: list[str],
) -> None:
    images, labels = raw_volumes / "imagesTr", raw_volumes / "labelsTr"
    rewrite(images / "case_b_0000.nii.gz", np.ones_like)
    rewrite(labels / "case_c.nii.gz", np.zeros_like)
    shutil.copy(images / "case_d_0000.nii.gz", images / "case_e_0000.nii.gz")
    shutil.copy(labels / "case_a.nii.gz", labels / "nobody.nii.gz")
    caplog.set_level(logging.WARNING)
    assert run(plan_and_preprocess_entry, *PLAN, "--no_pp", *flags)[0] == 0
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    expected = {
        "all voxels of channel 0 have the same value": "case_b_0000.nii.gz",
        "no voxel but background": "case_c.nii.gz",
        "cases with equal images": "case_d, case_e",
        "labels without an image": "nobody.nii.gz",
    }
    for text, name in expected.items():
        (line,) = [line for line in warnings if text in line]
        assert name in line
    assert len(warnings) == 4
    duplicates = nnunet_folders["nnUNet_preprocessed"] / volumes.DATASET / "duplicate_cases.json"
    assert json.loads(duplicates.read_text()) == [["case_d", "case_e"]]
    rewrite(images / "case_e_0000.nii.gz", lambda array: array + 1)
    assert run(extract_fingerprint_entry, *FINGERPRINT, "--clean")[0] == 0
    assert not duplicates.exists()


def test_verification_refuses_separated_duplicates(raw_volumes: Path, run: Callable) -> None:
    images = raw_volumes / "imagesTr"
    shutil.copy(images / "case_d_0000.nii.gz", images / "case_e_0000.nii.gz")
    splits = [{"train": ["case_a", "case_d"], "val": ["case_b", "case_e"]}]
    (raw_volumes / "splits_final.json").write_text(json.dumps(splits))
    code, said = run(extract_fingerprint_entry, *FINGERPRINT, VERIFY)
    assert code == 3
    one_line(said, "trains on case_d and validates on case_e", "equal images")


def test_good_cases_cause_no_warning(raw_volumes: Path, run: Callable, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for flags in ([], [VERIFY, "--clean"]):
        assert run(plan_and_preprocess_entry, *PLAN, "--no_pp", *flags)[0] == 0
    assert caplog.records == []
