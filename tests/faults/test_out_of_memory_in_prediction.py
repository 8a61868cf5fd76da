"""Memory runs out in a prediction (row 9): smaller steps give the voxels of the normal run, and a warning says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from nnunetv2.inference import export_prediction
from nnunetv2.inference.predict_entry_points import predict_entry_point_modelfolder
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.out_of_memory import is_out_of_memory
from tests.faults.conftest import one_line
from tests.faults.injection import times
from tests.inference.tiny_models import IMAGES, model_folder

IMAGE = IMAGES / "case_0000.nii.gz"
Run = Callable[..., tuple[int, str]]

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for case in ("a_0000", "b_0000"):
        shutil.copy(IMAGE, tmp_path / "in" / f"{case}.nii.gz")
    return tmp_path


def predict(run: Run, folder: Path, output: str, *more: str) -> tuple[int, str]:
    words = ["-f", "0", "1", "-device", "cpu", "-npp", "0", "-nps", "0", "--save_probabilities", *more]
    model = model_folder("3d_fullres")
    return run(predict_entry_point_modelfolder, "-i", folder / "in", "-o", folder / output, "-m", model, *words)


def assert_equal(first: Path, second: Path) -> None:
    for case in "ab":
        one, two = (np.asarray(nib.load(folder / f"{case}.nii.gz").dataobj) for folder in (first, second))
        assert (one != two).sum() == 0
        np.testing.assert_array_equal(*(np.load(folder / f"{case}.npz")["probabilities"] for folder in (first, second)))


def failing_forwards(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool], error: Exception) -> list[int]:
    """Lets the n-th forward pass of the network, from 1 on, raise an error; returns the failed ones."""
    calls, failed = [0], []
    load = nnUNetPredictor.manual_initialization

    def initialize(self: nnUNetPredictor, network: torch.nn.Module, *rest: object) -> None:
        def count(*_: object) -> None:
            calls[0] += 1
            if fails(calls[0]):
                failed.append(calls[0])
                raise error

        network.register_forward_pre_hook(count)
        load(self, network, *rest)

    monkeypatch.setattr(nnUNetPredictor, "manual_initialization", initialize)
    return failed


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError()], ids=["torch.OutOfMemoryError", "allocator", "MemoryError"])
def test_the_network_runs_out_of_memory_once(
    error: Exception, images: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict(run, images, "normal")[0] == 0
    for at_call in range(1, 1 + times(2 if error is GPU else 1, 12)):
        with monkeypatch.context() as patch:
            failed = failing_forwards(patch, lambda call, at=at_call: call == at, error)
            output = f"out{at_call}"
            code, stderr = predict(run, images, output)
            assert (code, failed) == (0, [at_call]), stderr
            assert_equal(images / output, images / "normal")


def test_what_is_done_instead_is_said(
    images: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing_forwards(monkeypatch, lambda call: call == 2, GPU)
    assert predict(run, images, "out")[0] == 0
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "does not suffice for an image of size" in warnings[0]


def test_a_case_for_which_memory_never_suffices_fails_alone(
    images: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict(run, images, "normal", "--disable_tta")[0] == 0
    failing_forwards(monkeypatch, lambda call: call <= 3, GPU)  # all attempts at the first case
    code, stderr = predict(run, images, "out", "--disable_tta")
    assert code == 4
    one_line(stderr, "1 of 2 cases failed: a (", "memory of cpu is too small for this network's tiles")
    assert not (images / "out" / "a.nii.gz").exists()
    normal, got = ((images / folder / "b.nii.gz").read_bytes() for folder in ("normal", "out"))
    assert normal == got


@pytest.mark.parametrize("regions", [False, True])
def test_resampling_runs_out_of_memory(regions: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The resampled logits of all classes do not fit, those of one class do."""
    generator = np.random.default_rng(9)
    labels = {"background": 0, "a": [1, 2, 3], "b": [2, 3], "c": 3} if regions else {"background": 0, "a": 1, "b": 2}
    manager = LabelManager(labels, [1, 2, 3] if regions else None)
    logits = generator.normal(size=(manager.num_segmentation_heads, 6, 7, 5)).astype(np.float32)
    shape = (6, 7, 5)
    normal = export_prediction._resample_to_labels(logits, shape, lambda group: group, manager)

    def resample(group: np.ndarray) -> np.ndarray:
        if len(group) > 1:
            raise MemoryError
        return group

    chunked = export_prediction._resample_to_labels(logits, shape, resample, manager)
    np.testing.assert_array_equal(chunked, normal)
    assert "going on with 1 at a time" in caplog.text
    with pytest.raises(MemoryError):
        export_prediction._resample_to_labels(logits, shape, _never, manager)


def _never(group: np.ndarray) -> np.ndarray:
    raise MemoryError


def test_other_errors_are_not_taken_for_missing_memory() -> None:
    assert all(map(is_out_of_memory, (GPU, CPU, MemoryError(), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"))))
    others = (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyError(1))
    assert not any(map(is_out_of_memory, others))
