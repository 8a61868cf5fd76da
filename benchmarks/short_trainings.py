"""Trainings of a few hundred steps: their commands, their scores, and what one step of each costs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from step_times import medians

from nnunetv2.run.run_training import get_trainer_from_args

STEPS_PER_EPOCH = 50
VALIDATION_STEPS = 2
FOLD, PLANS = "0", "nnUNetPlans"

UNET = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
_UNET_SOURCE = '''"""A trainer of nnU-Net with a given number of steps."""

from {module} import {trainer}


class {trainer}_counted_steps({trainer}):
    num_epochs = {epochs}
    num_iterations_per_epoch = {per_epoch}
    num_val_iterations_per_epoch = {validation}
'''


@dataclass(frozen=True)
class Training:
    """One row of a table."""

    command: tuple[str, ...]
    """the words of the command line"""
    trainer: str
    arguments: dict[str, Any]
    """constructor arguments of the trainer"""
    results: Path
    """its own `nnUNet_results`"""


@dataclass(frozen=True)
class Facts:
    """What is measured of a model without training it."""

    seconds_per_step: float
    parameters: str
    """trained / all, in millions"""
    learning_rate: float


def unet_training(module: str, common: Sequence[str], steps: int, results: Path) -> Training:
    """Writes a trainer of nnU-Net that makes this number of steps into `nnUNet_extTrainer`.

    Args:
        module: of the trainer, whose class has the name of the module.
        common: dataset, configuration, fold and flags.
    """
    trainer = module.rpartition(".")[2]
    counts = {"epochs": steps // STEPS_PER_EPOCH, "per_epoch": STEPS_PER_EPOCH, "validation": VALIDATION_STEPS}
    folder = Path(os.environ["nnUNet_extTrainer"])
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{trainer}_counted_steps"
    (folder / f"{name}.py").write_text(_UNET_SOURCE.format(module=module, trainer=trainer, **counts))
    return Training(("nnUNetv2_train", *common, "-tr", name), name, {}, results)


def head_training(settings: Sequence[str], common: Sequence[str], steps: int, results: Path) -> Training:
    """A head with these settings, and this number of steps."""
    words = [
        *settings,
        f"training.num_epochs={steps // STEPS_PER_EPOCH}",
        f"training.num_iterations_per_epoch={STEPS_PER_EPOCH}",
        f"training.num_val_iterations_per_epoch={VALIDATION_STEPS}",
    ]
    command = ("nnUNetv2_train_vit", *common, *words)
    return Training(command, "nnUNetTrainer_vit", {"overrides": words}, results)


def fold_folder(training: Training, dataset: str) -> Path:
    """Where the training writes."""
    return training.results / dataset / f"{training.trainer}__{PLANS}__{training.command[2]}" / f"fold_{FOLD}"


def summary_of(training: Training, dataset: str) -> Path:
    """The scores of its validation."""
    return fold_folder(training, dataset) / "validation" / "summary.json"


def train(training: Training, dataset: str) -> None:
    """Runs the command unless its result exists; a training that was stopped is resumed."""
    print("$", " ".join(training.command), flush=True)
    if summary_of(training, dataset).is_file():
        return
    training.results.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).parent / training.command[0]
    resume = ["--c"] if list(fold_folder(training, dataset).glob("checkpoint_*.pth")) else []
    environment = {**os.environ, "nnUNet_results": str(training.results)}
    with (training.results / "training.log").open("a") as log:
        subprocess.run([program, *training.command[1:], *resume], env=environment, stdout=log, stderr=log, check=True)


def measure(trainings: Sequence[Training], device: torch.device, repeats: int) -> Iterator[Facts]:
    """Measures the median time of a training step of each on one batch; they are timed in turn."""
    steps, parameters, rates = {}, {}, {}
    for number, training in enumerate(trainings):
        arguments = (training.trainer, PLANS, False, device, training.arguments)
        trainer = get_trainer_from_args(*training.command[1:4], *arguments)
        trainer.disable_checkpointing = True
        trainer.initialize()
        trainer.network.train()
        rates[str(number)] = trainer.initial_lr
        batch = next(trainer.get_dataloaders()[0])
        counts = [(p.numel(), p.requires_grad) for p in trainer.network.parameters()]
        trained = sum(count for count, is_trained in counts if is_trained)
        parameters[str(number)] = f"{trained / 1e6:.2f} / {sum(count for count, _ in counts) / 1e6:.2f}"
        steps[str(number)] = lambda trainer=trainer, batch=batch: trainer.train_step(batch)
    times = medians(steps, device, repeats)
    for name in steps:
        yield Facts(times[name]["ms"] / 1000, parameters[name], rates[name])
