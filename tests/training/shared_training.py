"""Trainings with given batches, by one process or shared by two, for tests that compare them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from dinov3.utils.processes.process_group import gather, process_group_from_environment, rank_and_world_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f
from tests.contracts.cases import Combination, label_maps, make_batch

STEPS = 3
NUM_IMAGES = 4


@dataclass(frozen=True)
class Shared(Combination):
    """A combination of model and data, and how its Dice loss is computed."""

    batch_dice: bool = True
    deep_supervision: bool = True

    def __str__(self) -> str:
        dice, depth = ("sample", "batch")[self.batch_dice], ("flat", "deep")[self.deep_supervision]
        return f"{super().__str__()}-{dice}-{depth}"

    def settings(self, training: dict[str, Any]) -> dict[str, Any]:
        """Nothing is dropped at random: the processes would draw other numbers than one process."""
        sections = super().settings(training)
        dropping = {"m2f": "drop_path_rate", "upernet": "dropout", "segformer": "dropout"}
        if self.model in dropping:
            sections["model"] = {**sections["model"], dropping[self.model]: 0.0}
        if "m2f_train" in sections:  # rounding would decide which of two points is the less certain one
            sections["m2f_train"] = {**sections["m2f_train"], "importance_sample_ratio": 0.0}
        if "lora" in sections:
            sections["lora"] = {**sections["lora"], "lora_dropout": 0.0}
        return sections

    def plans(self, *args: Any) -> dict[str, Any]:
        plans = super().plans(*args)
        plans["configurations"]["2d"] |= {"batch_dice": self.batch_dice, "batch_size": NUM_IMAGES}
        return plans


class _SeededPoints:
    """Lets the loss of Mask2Former draw the points of an image by a generator that only the image decides on."""

    def __init__(self, loss: MaskClassificationLoss) -> None:
        self.loss, self.total = loss, loss.total
        self.images: Tensor | None = None

    def __call__(self, *args: Any) -> Any:
        seeds = [int(1e4 * image.abs().sum()) for image in self.images]
        return self.loss(*args, generators=[torch.Generator().manual_seed(seed) for seed in seeds])


def train(combination: Shared, folder: Path) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of the steps, averaged over the processes, and the weights after them.

    In double precision: rounding would decide whether a point is inside a mask of Mask2Former's attention.
    """
    torch.manual_seed(3)
    trainer = combination.trainer(folder, num_epochs=2, num_iterations_per_epoch=STEPS, warmup_iters=0)
    trainer.enable_deep_supervision = trainer.enable_deep_supervision and combination.deep_supervision
    trainer.build_network_architecture = _in_double_precision(trainer.build_network_architecture)
    trainer.initialize()
    if isinstance(trainer, nnUNetTrainer_m2f):
        trainer.loss = _SeededPoints(trainer.loss)
    trainer.on_train_epoch_start()
    losses = []
    for batch in _batches(trainer, combination):
        share = {"data": _own_share(batch["data"]).double(), "target": _own_share(batch["target"])}
        trainer.loss.images = share["data"]
        loss = trainer.train_step(share)["loss"]
        losses.append(float(np.mean(gather(loss))))
    return losses, {name.removeprefix("module."): value for name, value in trainer.network.state_dict().items()}


def _in_double_precision(hook: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    @functools.wraps(hook)
    def build(*args: Any, **kwargs: Any) -> nn.Module:
        return hook(*args, **kwargs).double()

    return build


def _batches(trainer: nnUNetTrainer, combination: Combination) -> list[dict[str, Any]]:
    """One global batch for each step, with other images in each."""
    torch.manual_seed(7)
    maps = label_maps(combination)
    maps = torch.cat([maps.roll(shift, dims=-1) for shift in range(0, 2 * NUM_IMAGES, 4)])
    return [make_batch(trainer, combination, maps.roll(step, dims=-1)) for step in range(STEPS)]


def _own_share(value: Any) -> Any:
    if isinstance(value, list):
        return [_own_share(each) for each in value]
    rank, world_size = rank_and_world_size()
    own = len(value) // world_size
    return value[rank * own : (rank + 1) * own]


def train_in_group(combinations: Sequence[Shared], folder: Path) -> None:
    """One of several processes: trains every combination; the first writes what `train` returns."""
    torch.set_num_threads(1)
    with process_group_from_environment(torch.device("cpu")):
        rank = rank_and_world_size()[0]
        own = folder / f"rank_{rank}"
        own.mkdir()
        for combination in combinations:
            result = train(combination, own)
            if rank == 0:
                torch.save(result, folder / f"{combination}.pt")
