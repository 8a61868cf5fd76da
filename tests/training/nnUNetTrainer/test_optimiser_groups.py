"""What each group of parameters learns with, over the schedule and after a training is resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_mymodel import nnUNetTrainer_mymodel
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

SMALL = [
    "model.backbone_size=tiny",
    "model.pretrained=false",
    "model.hidden_size=16",
    "training.num_epochs=2",
    "training.num_iterations_per_epoch=10",
]
MakeTrainer = Callable[..., nnUNetTrainer_mymodel]


@pytest.fixture
def trainer_of(nnunet_folders: dict[str, Path], seeded: int) -> MakeTrainer:
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])

    def make(*words: str) -> nnUNetTrainer_mymodel:
        trainer = make_trainer(nnUNetTrainer_mymodel, vit_overrides=[*SMALL, *words])
        trainer.initialize()
        return trainer

    return make


def rates(trainer: Any) -> dict[str, float]:
    return {group["name"].removesuffix(", no decay"): group["lr"] for group in trainer.optimizer.param_groups}


def test_every_tuning_has_its_groups_which_the_log_tells(trainer_of):
    settings = ["training.lr=1e-3", "training.lora_lr_multiplier=0.5", "training.backbone_lr_multiplier=0.2"]
    expected = {
        "frozen": {"head": 1e-3},
        "lora": {"head": 1e-3, "lora": 5e-4},
        "full": {"head": 1e-3, "backbone": 2e-4},
    }
    for tuning, groups in expected.items():
        trainer = trainer_of(*settings, f"model.tuning={tuning}")
        peaks = {group["name"]: group["initial_lr"] for group in trainer.optimizer.param_groups}
        assert {name: peak for name, peak in peaks.items() if "no decay" not in name} == pytest.approx(groups)
        assert {name.removesuffix(", no decay") for name in peaks} == groups.keys()
        log = Path(trainer.log_file).read_text().splitlines()
        lines = [line for line in log if "Parameter group" in line][-len(peaks) :]
        assert len(lines) == len(trainer.optimizer.param_groups)
        assert "Parameter group head: " in lines[0]
        assert lines[0].endswith("learning rate 0.001, decay 0.05")


def test_layer_decay_is_for_the_whole_backbone_alone(trainer_of):
    words = [
        "training.layer_decay=0.5",
        "training.lr=1",
        "training.backbone_lr_multiplier=1",
        "training.scheduler=poly",
    ]
    found = rates(trainer_of("model.tuning=full", "training.warmup_iters=0", *words))
    assert found["backbone, embeddings"] == pytest.approx(0.5**5)
    assert [found[f"backbone, block {i}"] for i in range(4)] == pytest.approx([0.5**4, 0.5**3, 0.5**2, 0.5])
    assert rates(trainer_of("model.tuning=lora", "training.warmup_iters=0", *words)).keys() == {"head", "lora"}


@pytest.mark.parametrize("scheduler", ["WarmupOneCycleLR", "poly"])
def test_the_ratios_of_the_groups_stay_over_the_whole_schedule(trainer_of, scheduler):
    trainer = trainer_of(
        "model.tuning=full", "training.layer_decay=0.7", f"training.scheduler={scheduler}", "training.warmup_iters=2"
    )
    peaks = [group["initial_lr"] for group in trainer.optimizer.param_groups]
    seen = []
    for _ in range(20):
        current = [group["lr"] for group in trainer.optimizer.param_groups]
        assert [rate * peaks[0] for rate in current] == pytest.approx([current[0] * peak for peak in peaks])
        seen.append(current[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert len(set(seen)) > 10
    assert max(seen) > 0.8 * peaks[0]


@pytest.fixture
def checkpoint(trainer_of, tmp_path) -> Path:
    trainer = trainer_of("model.tuning=full", "training.lr=1e-3", "training.scheduler=poly")
    for _ in range(10):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    return tmp_path / "checkpoint.pth"


@pytest.mark.parametrize("lr", [1e-3, 2e-4])
def test_a_resumed_training_has_the_rates_and_decay_of_its_settings(trainer_of, checkpoint, lr):
    trainer = trainer_of(
        "model.tuning=full", f"training.lr={lr}", "training.scheduler=poly", "training.weight_decay=0.25"
    )
    trainer.load_checkpoint(str(checkpoint))
    done = (1 - (10 - 2) / 18) ** 0.9  # of 20 iterations the first two are the warm-up
    assert rates(trainer) == pytest.approx({"head": lr * done, "backbone": 0.1 * lr * done})
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.25, 0.0}
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    assert rates(trainer)["head"] == pytest.approx(lr * (1 - (11 - 2) / 18) ** 0.9)


def test_other_groups_than_those_of_the_checkpoint_are_refused(trainer_of, checkpoint):
    with pytest.raises(UsageError, match="other groups of parameters .*training.layer_decay and model.tuning"):
        trainer_of("model.tuning=full", "training.layer_decay=0.5").load_checkpoint(str(checkpoint))


def test_the_checkpoint_holds_the_settings_as_plain_data(trainer_of, checkpoint):
    config = load_checkpoint(checkpoint)["trainer_config"]
    assert config == trainer_of("model.tuning=full", "training.lr=1e-3", "training.scheduler=poly").trainer_config
    assert config["model"]["tuning"] == "full"
    assert torch.load(checkpoint, weights_only=True)["trainer_config"] == config
