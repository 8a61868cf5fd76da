"""A small learnable dataset and the settings to train tiny models on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dinov3.eval.segmentation.config import SegmentationConfig, load_segmentation_config
from dinov3.eval.segmentation.data.labels import SemanticToM2FTargets
from dinov3.eval.segmentation.loss import MultiSegmentationLoss
from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from dinov3.eval.segmentation.train import train_step
from dinov3.eval.segmentation.train_m2f import train_step_m2f
from dinov3.eval.segmentation.training.log import TRAINING_LOG
from dinov3.eval.segmentation.training.loop import train_model
from dinov3.eval.segmentation.training.setup import build_model
from dinov3.hub.backbones import dinov3_vits16

NUM_CLASSES = 3
SIDE = 64
COLOURS = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220]])


def write_dataset(root: Path, *, num_train: int = 6, num_val: int = 2, num_unlabelled: int = 0) -> Path:
    """Images of four squares; the colour of a square is its class. A strip of 8 pixels, or all, is not labelled."""
    generator = np.random.default_rng(0)
    for split, count in (("training", num_train), ("validation", num_val)):
        for folder in ("images", "annotations"):
            (root / folder / split).mkdir(parents=True)
        for index in range(count):
            label = np.kron(generator.integers(0, NUM_CLASSES, (2, 2)), np.ones((SIDE // 2, SIDE // 2), dtype=int))
            noise = generator.integers(-20, 20, (SIDE, SIDE, 3))
            image = np.clip(COLOURS[label] + noise, 0, 255).astype(np.uint8)
            label[: SIDE if split == "training" and index < num_unlabelled else 8] = 255
            Image.fromarray(image).save(root / "images" / split / f"{index}.png")
            Image.fromarray(label.astype(np.uint8)).save(root / "annotations" / split / f"{index}.png")
    return root


def toy_config(root: Path, output: Path, head: str, *words: str) -> SegmentationConfig:
    """Settings of a training of a few seconds; `words` go before them."""
    return load_segmentation_config(
        [
            f"datasets.root={root}",
            "datasets.train=ADE20K:split=TRAIN",
            "datasets.val=ADE20K:split=VAL",
            f"output_dir={output}",
            "device=cpu",
            "bs=2",
            "num_workers=0",
            "seed=3",
            "eval.reduce_zero_label=false",
            "eval.mode=whole",
            "scheduler.total_iter=6",
            "scheduler.constructor_kwargs={warmup_iters: 0}",
            "optimizer.lr=0.01",
            "transforms.train.crop_size=[64,64]",
            "transforms.train.flip_prob=0.5",
            "transforms.train.photometric_distortion=false",
            f"decoder_head.num_classes={NUM_CLASSES}",
            f"decoder_head.type={head}",
            "decoder_head.backbone_out_layers=[0,1,2,3]",
            "decoder_head.hidden_dim=32",
            "decoder_head.num_heads=4",
            "decoder_head.dim_feedforward=32",
            "decoder_head.num_queries=6",
            "decoder_head.num_encoder_layers=1",
            "decoder_head.num_decoder_layers=2",
            "m2f_train.num_points=64",
            "lora.r=2",
            "lora.lora_alpha=4",
            *words,
        ]
    )


def toy_backbone(seed: int = 0) -> torch.nn.Module:
    """The same weights every time; the random state outside stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return dinov3_vits16(pretrained=False, embed_dim=64, depth=4, num_heads=2)


def train_toy(config: SegmentationConfig, backbone: torch.nn.Module | None = None, **options: Any) -> dict[str, float]:
    """Trains the head of `config` as the commands do; options go to `train_model`, `train_step` among them."""
    is_m2f = config.decoder_head.type == "m2f"
    settings = {"train_step": train_step_m2f if is_m2f else train_step, **options}
    if is_m2f:
        criterion = MaskClassificationLoss(NUM_CLASSES, **vars(config.m2f_train))
        settings["targets"] = SemanticToM2FTargets(NUM_CLASSES)
    else:
        criterion = MultiSegmentationLoss(config.train.diceloss_weight, config.train.celoss_weight)
    model = build_model(toy_backbone() if backbone is None else backbone, config)
    return train_model(model, config, criterion=criterion, **settings)


def logged_losses(output: Path) -> list[dict[str, float]]:
    """The losses of all lines of a training's log."""
    lines = [json.loads(line) for line in (output / TRAINING_LOG).read_text().splitlines()]
    return [line["losses"] for line in lines if "losses" in line]
