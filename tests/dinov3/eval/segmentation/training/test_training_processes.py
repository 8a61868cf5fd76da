"""Training shared by two processes is the training of one with all the images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing import spawn

from dinov3.eval.segmentation.training.checkpoint import CHECKPOINT_LATEST
from tests.dinov3.toy_training import logged_losses, toy_config, train_toy, write_dataset

pytestmark = pytest.mark.slow

STEPS = 3  # each of the six images once
# Rounding differs between one and two processes. The learning rates are those that suit the heads: at ten times the
# rate it soon changes which query belongs to which mask, and from there on the losses differ visibly.
TRAININGS = {
    "linear": ["decoder_head.dropout=0", "train.diceloss_weight=0.5", "optimizer.lr=0.001"],
    "linear_lora": [
        "decoder_head.dropout=0",
        "decoder_head.backbone_out_layers=[1]",
        "lora.enabled=true",
        "lora.lora_dropout=0",
    ],
    "m2f": ["decoder_head.drop_path_rate=0", "optimizer.lr=0.0001"],
}


def _train(data: Path, output: Path, name: str, images_per_process: int) -> None:
    head = name.partition("_")[0]
    settings = [f"bs={images_per_process}", f"scheduler.total_iter={STEPS}", *TRAININGS[name]]
    train_toy(toy_config(data, output / name, head, *settings), log_interval=1)


def _process(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    try:
        for name in TRAININGS:
            _train(folder / "data", folder / "two", name, images_per_process=1)
    finally:
        distributed.destroy_process_group()


def test_two_processes_train_like_one_with_the_same_images(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", num_unlabelled=2)  # where a process has one of these, it has no mask at all
    spawn(_process, (2, tmp_path), nprocs=2)
    for name in TRAININGS:
        _train(tmp_path / "data", tmp_path / "one", name, images_per_process=2)
        one, two = logged_losses(tmp_path / "one" / name), logged_losses(tmp_path / "two" / name)
        assert len(one) == len(two) == STEPS
        for step, (expected, found) in enumerate(zip(one, two, strict=True)):
            assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), f"{name}, step {step}"
        states = [
            torch.load(tmp_path / run / name / CHECKPOINT_LATEST, weights_only=True)["model"] for run in ("one", "two")
        ]
        statistics = [key for key in states[0] if "running_" in key]
        assert statistics
        for key in statistics:  # biases in front of a batch norm have no gradient but rounding, along which Adam walks
            torch.testing.assert_close(states[1][key], states[0][key], rtol=1e-4, atol=1e-3, msg=key)
