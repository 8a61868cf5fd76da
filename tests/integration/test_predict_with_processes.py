"""Prediction with worker processes gives what prediction in one process gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nnunetv2.inference import case_export, data_iterators
from nnunetv2.inference.predict_entry_points import predict_entry_point_modelfolder
from nnunetv2.utilities.processes import worker_pool
from nnunetv2.utilities.processes.case_failures import PartialPredictionError
from tests.inference.tiny_models import IMAGES, model_folder, tiny_predictor

pytestmark = [pytest.mark.slow, pytest.mark.integration]


@pytest.fixture
def four_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images, the second of them damaged; and processes are started although so little work is not worth them."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abcd":
        shutil.copy(IMAGES / "case_0000.nii.gz", folder / f"{name}_0000.nii.gz")
    damaged = folder / "b_0000.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:200])
    monkeypatch.setattr(data_iterators, "WORTH_A_PROCESS_BYTES", 0)
    monkeypatch.setattr(case_export, "WORTH_A_PROCESS_VALUES", 0)
    monkeypatch.setattr(worker_pool, "num_available_cores", lambda: 2)
    return folder


def test_processes_change_nothing(four_cases: Path, tmp_path: Path) -> None:
    for output, num_processes in (("alone", 0), ("pools", 2)):
        with pytest.raises(PartialPredictionError, match=r"1 of 4 cases failed: b \("):
            tiny_predictor().predict_from_files(
                str(four_cases),
                str(tmp_path / output),
                save_probabilities=True,
                num_processes_preprocessing=num_processes,
                num_processes_segmentation_export=min(num_processes, 1),
            )
    alone, pools = ({p.name: p for p in (tmp_path / name).iterdir()} for name in ("alone", "pools"))
    assert set(alone) == set(pools)
    assert {"a.nii.gz", "a.npz", "a.pkl", "failures.json"} <= set(alone)
    for name in ("a.nii.gz", "c.nii.gz", "d.nii.gz", "failures.json"):
        assert pools[name].read_bytes() == alone[name].read_bytes()


def test_shared_cases_give_the_files_of_one_process(four_cases: Path, tmp_path: Path) -> None:
    """The damaged image is the second process's; it finishes the rest, and the first one's cases are there."""
    command = ["-i", str(four_cases), "-m", str(model_folder("3d_fullres")), "-f", "0", "-device", "cpu"]
    for output, num_gpus in (("one", "1"), ("two", "2")):
        arguments = [*command, "-o", str(tmp_path / output), "-num_gpus", num_gpus]
        assert predict_entry_point_modelfolder(arguments) == PartialPredictionError.exit_code
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    description = "predict_from_raw_data_args.json"
    assert two.pop(description) == one.pop(description).replace(b"/one", b"/two")
    assert two == one
