"""The DINOv3 tree on ten real microscope images: both heads learn to segment what they have not seen."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov3.eval.segmentation.run import main
from tests.dinov3.scratch_assay_folder import NUM_CLASSES, make_scratch_assay_folder

SETTINGS = f"""
model:
  dino_hub: dinov3_vits16
  pretrained: false
  kwargs: {{embed_dim: 64, depth: 4, num_heads: 2, layerscale_init: 0.1}}
train_backbone: true
bs: 4
num_workers: 0
device: cpu
scheduler: {{total_iter: 60}}
optimizer: {{lr: 2e-3, gradient_clip: 1.0, backbone_lr_multiplier: 1.0}}
datasets: {{train: "ADE20K:split=TRAIN", val: "ADE20K:split=VAL"}}
decoder_head:
  num_classes: {NUM_CLASSES}
  hidden_dim: 64
  num_heads: 4
  dim_feedforward: 64
  num_queries: 8
  num_encoder_layers: 1
  num_decoder_layers: 2
  drop_path_rate: 0.0
m2f_train: {{num_points: 400}}
transforms:
  train: {{img_size: 210, crop_size: 96, flip_prob: 0.5, photometric_distortion: false}}
  eval: {{img_size: null}}
eval: {{reduce_zero_label: false, crop_size: 96, stride: 96}}
"""


@pytest.fixture(scope="module")
def assay(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scratch_assay_folder(shared_folder, tmp_path_factory.mktemp("assay"))


def majority_miou(assay: Path) -> float:
    """mIoU in percent of predicting the most frequent class everywhere."""
    counts = np.zeros(NUM_CLASSES)
    for path in (assay / "annotations" / "validation").glob("*.png"):
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=NUM_CLASSES)
    return 100 * counts.max() / counts.sum() / NUM_CLASSES


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("head", ["m2f", "linear"])
def test_a_head_learns_real_images(assay: Path, tmp_path: Path, head: str) -> None:
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    output = tmp_path / "run"
    words = [f"config={tmp_path / 'settings.yaml'}", f"datasets.root={assay}", f"output_dir={output}"]
    assert main([*words, f"decoder_head.type={head}"]) == 0
    lines = [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]
    losses = [line["losses"]["loss"] for line in lines if "losses" in line]
    assert losses[-1] < losses[0]
    with open(output / "results-semantic-segmentation.csv", newline="") as file:
        (results,) = csv.DictReader(file)
    assert float(results["mIoU"]) > 1.5 * majority_miou(assay)
