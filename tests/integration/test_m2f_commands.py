"""Train, continue, validate and predict Mask2Former by commands alone; prediction never sees the settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dinov3.utils.atomic_files import read_json
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from tests.training.tiny_dataset import CASES, write_tiny_dataset

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).resolve().parents[2]
PREDICT = "import sys; from nnunetv2.inference.predict_entry_points import predict_entry_point as e; sys.exit(e())"
SETTINGS = """
model:
  backbone_size: tiny
  pretrained: false
  hidden_dim: 32
  num_heads: 2
  dim_feedforward: 32
  num_queries: 5
  num_encoder_layers: 1
  num_decoder_layers: 3
m2f_train:
  num_points: 100
training:
  lr: 1e-3
  batch_size: 2
  patch_size: [64, 64]
  num_epochs: 1
  num_iterations_per_epoch: 3
  num_val_iterations_per_epoch: 1
"""


@pytest.fixture
def fold(nnunet_folders: dict[str, Path]) -> Path:
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    return nnunet_folders["nnUNet_results"] / "Dataset777_Tiny" / "nnUNetTrainer_m2f__nnUNetPlans__2d" / "fold_0"


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train(*words: str) -> str:
    return run("nnUNetv2_train_m2f.py", "777", "2d", "0", "-device", "cpu", *words)


def test_a_model_is_trained_continued_and_used_without_its_settings(fold, tmp_path):
    settings = tmp_path / "my.yaml"
    settings.write_text(SETTINGS)
    train("--m2f_config", str(settings), "lora.r=2")
    assert (fold / "checkpoint_final.pth").is_file()
    settings.unlink()

    plans = read_json(fold.parent / "plans.json")
    assert plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["lora"]["r"] == 2
    output = train("--c", "training.num_epochs=2")
    assert "Epoch 1" in output
    assert "Epoch 0" not in output
    summary = read_json(fold / "validation" / "summary.json")
    assert len(summary["metric_per_case"]) == 2

    images = tmp_path / "images"
    images.mkdir()
    references = Path(os.environ["nnUNet_preprocessed"]) / "Dataset777_Tiny" / "gt_segmentations"
    (images / "case_0000.png").write_bytes((references / f"{CASES[0]}.png").read_bytes())
    run(
        *("-c", PREDICT),
        *("-i", str(images), "-o", str(tmp_path / "predicted"), "-d", "777", "-c", "2d", "-f", "0"),
        *("-tr", "nnUNetTrainer_m2f", "-device", "cpu", "-npp", "1", "-nps", "1"),
    )
    segmentation, _ = NaturalImage2DIO().read_seg(str(tmp_path / "predicted" / "case.png"))
    assert segmentation.shape == (1, 1, 40, 40)
