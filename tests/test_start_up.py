"""Which slow packages commands do without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inference.tiny_models import IMAGES, model_folder
from tests.training import tiny_dataset

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def packages_after(code: str, root: Path) -> set[str]:
    """Names of all modules in a new process that has run `code`, which must succeed."""
    environment = os.environ | {name: str(root / name) for name in FOLDERS} | {"nnUNet_n_proc_DA": "0"}
    lines = f"import json, sys\n{code}\nprint(json.dumps(list(sys.modules)))"
    command = [sys.executable, "-c", lines]
    printed = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True).stdout
    return set(json.loads(printed.splitlines()[-1]))


def test_a_model_that_does_not_exist_is_refused_without_torch(tmp_path: Path) -> None:
    code = (
        "from nnunetv2.inference.predict_entry_points import predict_entry_point_modelfolder as predict\n"
        "assert predict(['-i', 'images', '-o', 'out', '-m', 'no_model', '-f', '0']) == 2"
    )
    assert not packages_after(code, tmp_path) & {"torch", "numpy"}


@pytest.mark.slow
def test_a_prediction_imports_nothing_for_training(tmp_path: Path) -> None:
    words = ["-i", str(IMAGES), "-o", "out", "-m", str(model_folder("3d_fullres")), "-f", "0", "-device", "cpu"]
    code = (
        "from nnunetv2.inference.predict_entry_points import predict_entry_point_modelfolder as predict\n"
        f"assert predict([*{words}, '-npp', '0', '-nps', '0']) == 0"
    )
    loaded = packages_after(code, tmp_path)
    assert "torch" in loaded
    unneeded = {"blosc2", "pandas", "sklearn", "skimage.io", "skimage.morphology", "scipy.stats", "scipy.spatial"}
    assert not loaded & (unneeded | {"torchvision", "timm", "transformers", "peft", "matplotlib", "torch._dynamo"})


@pytest.mark.slow
def test_training_a_unet_imports_nothing_for_other_models(tmp_path: Path) -> None:
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    tiny_dataset.write_tiny_dataset(tmp_path / "nnUNet_preprocessed")
    code = (
        "from unittest import mock\n"
        "from nnunetv2.run.run_training import run_training_entry as train\n"
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "with mock.patch.object(nnUNetTrainer, 'perform_actual_validation'):\n"
        f"    assert train(['{tiny_dataset.NAME}', '2d', '0', '-device', 'cpu', '--num_epochs', '1',\n"
        "        '--num_iterations_per_epoch', '1', '--num_val_iterations_per_epoch', '1']) == 0"
    )
    loaded = packages_after(code, tmp_path)
    assert "blosc2" in loaded
    unneeded = {"torchvision", "timm", "transformers", "peft", "sklearn", "scipy.stats", "skimage.morphology"}
    assert not loaded & (unneeded | {"SimpleITK", "nibabel", "monai"})
