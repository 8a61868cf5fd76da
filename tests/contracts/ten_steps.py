"""One training of ten steps that is interrupted after three, and what is seen on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tests.contracts.cases import Combination, make_batch

BEFORE_SAVING, AFTER_RESUMING, IN_ALL = 3, 2, 10
# The two epochs are over after ten steps; the warm-up takes the first of them, with a learning rate of 0.
_LENGTH = {"num_epochs": 2, "num_iterations_per_epoch": IN_ALL // 2}


@dataclass
class Gradients:
    """Names of parameters, by the gradients that the steps of a training left."""

    there: list[set[str]] = field(default_factory=list)
    """Per step: those that have a gradient."""
    nonzero: list[set[str]] = field(default_factory=list)
    """Per step: those whose gradient is not 0 everywhere."""
    not_finite: set[str] = field(default_factory=set)

    def note(self, network: nn.Module) -> None:
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        sizes = torch.stack([gradient.abs().sum() for gradient in gradients.values()]).tolist()
        self.there.append(set(gradients))
        self.nonzero.append({name for name, size in zip(gradients, sizes, strict=True) if size != 0})
        self.not_finite |= {name for name, size in zip(gradients, sizes, strict=True) if not math.isfinite(size)}


@dataclass(repr=False)  # pytest would write all weights beside a failure
class TenSteps:
    """What the contract asks about.

    Attributes:
        combination: that was trained.
        trainer: after ten steps.
        before: parameters and buffers as initialised.
        gradients: of the ten steps.
        image: (2, C, H, W) of the batch.
        logits_when_saved: of the image, in eval mode, after three steps.
        logits_when_loaded: the same of a new trainer that loaded the checkpoint written then.
        uninterrupted: weights, optimiser and schedule after five steps.
        resumed: the same of the new trainer, which did the last two of them.
    """

    combination: Combination
    trainer: nnUNetTrainer
    before: dict[str, Tensor]
    gradients: Gradients
    image: Tensor
    logits_when_saved: Tensor
    logits_when_loaded: Tensor
    uninterrupted: dict[str, Any]
    resumed: dict[str, Any]

    @property
    def network(self) -> nn.Module:
        return self.trainer.network

    def changed(self) -> set[str]:
        """Names of the parameters and buffers that ten steps changed."""
        return {name for name, value in tensors_of(self.network).items() if not torch.equal(value, self.before[name])}


def train_ten_steps(combination: Combination, folder: Path) -> TenSteps:
    """Trains as `run_training` does, without its loaders; everything random is seeded."""
    trainer, gradients = _started(combination, folder, seed=0), Gradients()
    trainer.initialize()
    before = {name: value.clone() for name, value in tensors_of(trainer.network).items()}
    batch = make_batch(trainer, combination)
    trainer.on_train_epoch_start()
    _train(trainer, batch, BEFORE_SAVING, gradients)

    checkpoint = folder / f"{combination}.pth"
    trainer.save_checkpoint(str(checkpoint))
    logits_when_saved = logits(trainer.network.eval(), batch["data"])
    trainer.current_epoch += 1  # as on_epoch_end does after saving
    resumed = _started(combination, folder, seed=1)
    resumed.load_checkpoint(str(checkpoint))
    checkpoint.unlink()  # all of them would fill gigabytes
    logits_when_loaded = logits(resumed.network.eval(), batch["data"])
    states = []
    for each, notes in ((resumed, None), (trainer, gradients)):
        each.on_train_epoch_start()
        _train(each, batch, AFTER_RESUMING, notes)
        states.append(_state(each))
    _train(trainer, batch, IN_ALL - BEFORE_SAVING - AFTER_RESUMING, gradients)
    return TenSteps(
        combination,
        trainer,
        before,
        gradients,
        batch["data"],
        logits_when_saved,
        logits_when_loaded,
        resumed=states[0],
        uninterrupted=states[1],
    )


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, also the buffers that are in no checkpoint."""
    return {name: value.detach() for name, value in (*network.named_parameters(), *network.named_buffers())}


def logits(network: nn.Module, image: Tensor) -> Tensor:
    """Dense logits at full resolution, without gradients."""
    with torch.no_grad():
        output = network(image)
    return output[0] if isinstance(output, list) else output


def _started(combination: Combination, folder: Path, seed: int) -> nnUNetTrainer:
    torch.manual_seed(seed)
    return combination.trainer(folder, **_LENGTH)


def _train(trainer: nnUNetTrainer, batch: dict[str, Any], steps: int, gradients: Gradients | None) -> None:
    torch.manual_seed(trainer.current_epoch)  # dropout and the points of the loss are drawn
    trainer.network.train()
    for _ in range(steps):
        trainer.train_step(batch)
        if gradients is not None:
            gradients.note(trainer.network)


def _state(trainer: nnUNetTrainer) -> dict[str, Any]:
    """What decides how a training goes on, copied, as plain names and values."""
    moments = trainer.optimizer.state_dict()["state"]
    return {
        "weights": {name: value.clone() for name, value in tensors_of(trainer.network).items()},
        "moments": {
            f"{parameter}.{name}": value.clone()
            for parameter, values in moments.items()
            for name, value in values.items()
            if isinstance(value, Tensor)
        },
        "rates": [group["lr"] for group in trainer.optimizer.param_groups],
        "epoch": trainer.current_epoch,
        "iteration": getattr(trainer.lr_scheduler, "last_epoch", None)
        if trainer.scheduler_step_per_iteration
        else None,
    }
