"""What holds for every head on volumes, however it is tuned, whatever the channels, labels and number of slices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from tests.contracts.cases import (
    CHANNEL_RULES,
    CPU,
    IGNORED,
    TUNINGS,
    Combination,
    expected_trainable,
    label_maps,
    make_batch,
)
from tests.contracts.ten_steps import logits, tensors_of
from tests.model.heads.small import HEADS, SMALL
from tests.training.tiny_volumes import CONFIGURATION, NAME, volume_plans

CHANNELS, LABELS, DEPTHS = (1, 2, 4), ("labels", "regions", "ignore"), (1, 3, 10)
NUM_OUTPUTS = {"labels": 3, "regions": 2, "ignore": 3}
STEPS = 3  # the first of the warm-up has a learning rate of 0


@dataclass(frozen=True)
class Volumes(Combination):
    """A combination on patches of several slices.

    Attributes:
        depth: slices; the backbone of the longest patches encodes them in two chunks.
    """

    depth: int

    def __str__(self) -> str:
        return f"{super().__str__()}-{self.depth}slices"

    def started(self, folder: Path) -> nnUNetTrainer_vit:
        path = folder / f"{self}.yaml"
        settings = {
            "backbone_size": "tiny",
            "pretrained": False,
            "tuning": self.tuning,
            "channel_adaptation": CHANNEL_RULES[self.channels],
            **SMALL[self.model],
        }
        loss = {"m2f_train": {"num_points": 64}} if self.model in ("m2f", "eomt", "pmt") else {}
        length = {"num_epochs": 2, "num_iterations_per_epoch": 5}
        path.write_text(json.dumps({"model": {"head": self.model, **settings}, "training": length, **loss}))
        plans = volume_plans()
        plans["configurations"][CONFIGURATION] |= {
            "patch_size": [self.depth, *self.patch],
            "normalization_schemes": ["NoNormalization"] * self.channels,
            "use_mask_for_norm": [False] * self.channels,
        }
        trainer = nnUNetTrainer_vit(plans, CONFIGURATION, 0, self.dataset_json(), CPU, config_path=str(path))
        trainer.initialize()
        return trainer

    def maps(self) -> Tensor:
        """Label maps (2, 1, D, H, W) whose objects move from slice to slice; ignored pixels include a whole slice."""
        flat = label_maps(self)
        maps = torch.stack([flat.roll(z, dims=-1) for z in range(self.depth)], dim=2)
        if self.has_ignored_pixels and self.depth > 1:
            maps[:, :, 0] = IGNORED
        return maps


def combinations() -> list[Any]:
    """Three for each head; every value of a factor meets every value of each other."""
    parameters = []
    for i, head in enumerate(HEADS):
        for j, tuning in enumerate(TUNINGS):
            others = CHANNELS[(i + j) % 3], LABELS[(2 * i + j) % 3], DEPTHS[(i // 3 + j) % 3]
            combination = Volumes(head, tuning, *others)
            quick = head in ("segformer", "eomt") and tuning == "lora"
            parameters.append(pytest.param(combination, id=str(combination), marks=() if quick else pytest.mark.slow))
    return parameters


@pytest.fixture(autouse=True)
def empty_dataset(folders: Path) -> None:
    cases = folders / "nnUNet_preprocessed" / NAME / f"nnUNetPlans_{CONFIGURATION}"
    cases.mkdir(parents=True, exist_ok=True)
    (cases / "case.b2nd").touch()


def train(trainer: nnUNetTrainer_vit, batch: dict[str, Any], steps: int) -> list[float]:
    torch.manual_seed(0)
    trainer.network.train()
    return [float(trainer.train_step(batch)["loss"]) for _ in range(steps)]


@pytest.mark.parametrize("volumes", combinations())
def test_volumes_are_learned_saved_and_predicted(volumes: Volumes, folders: Path) -> None:
    torch.manual_seed(0)
    trainer = volumes.started(folders)
    batch = make_batch(trainer, volumes, volumes.maps())
    before = {name: value.clone() for name, value in tensors_of(trainer.network).items()}
    trainer.on_train_epoch_start()
    assert all(map(torch.isfinite, map(torch.tensor, train(trainer, batch, STEPS))))

    trained = expected_trainable(volumes, trainer.network)
    assert {name for name, p in trainer.network.named_parameters() if p.grad is not None} == trained
    assert any(name.startswith("fusion.") for name in trained)
    parameters = dict(trainer.network.named_parameters())
    changed = {name for name, value in parameters.items() if not torch.equal(value, before[name])}
    assert changed <= trained
    assert {name for name in trained if name.startswith("fusion.") and name.endswith("conv.weight")} <= changed

    checkpoint = folders / f"{volumes}.pth"
    trainer.save_checkpoint(str(checkpoint))
    resumed = volumes.started(folders)
    resumed.load_checkpoint(str(checkpoint))
    checkpoint.unlink()
    shape = (2, NUM_OUTPUTS[volumes.labels], volumes.depth, *volumes.patch)
    expected = logits(trainer.network.eval(), batch["data"])
    assert expected.shape == shape
    assert expected.isfinite().all()
    assert torch.equal(logits(resumed.network.eval(), batch["data"]), expected)
    losses = [train(each, batch, 1) for each in (trainer, resumed)]
    assert losses[0] == losses[1]

    predictor = nnUNetPredictor(device=CPU, use_mirroring=volumes.depth == 1, allow_tqdm=False)
    managers = (trainer.plans_manager, trainer.configuration_manager)
    predictor.manual_initialization(
        resumed.network, *managers, None, trainer.dataset_json, type(trainer).__name__, (0, 1, 2)
    )
    larger = [volumes.depth + 2, volumes.patch[0] + 5, volumes.patch[1] - 3]
    found = predictor.predict_sliding_window_return_logits(torch.randn(volumes.channels, *larger))
    assert found.shape == (NUM_OUTPUTS[volumes.labels], *larger)
    assert found.isfinite().all()
