"""A few steps of a trainer on the pretended device, and what they made the host wait for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.contracts import cases
from tests.contracts.cases import Combination, make_batch, write_empty_dataset
from tests.pretend_cuda.device import CUDA, pretended_cuda

TRAIN_STEPS = 3


@dataclass(frozen=True)
class Steps:
    """What is known of three training steps and a validation step.

    Attributes:
        losses: of the training steps.
        validation: what the validation step returned, as plain numbers.
        waits: of the last training step, which finds everything remembered that is remembered.
        validation_waits: of the validation step.
        staged: of the last training step, see `HostLog`.
        launches: of the last training step.
        late_reads: of the training steps, see `HostLog`.
    """

    losses: list[float]
    validation: dict[str, Any]
    waits: list[str]
    validation_waits: list[str]
    staged: list[str]
    launches: int
    late_reads: list[int]


def set_up_process(folder: Path) -> None:
    """Makes a new process ready for `train`; the folder gets the roots of nnU-Net."""
    torch.set_num_threads(1)
    roots = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    os.environ |= {**roots, "nnUNet_compile": "f", "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}
    write_empty_dataset(folder / "nnUNet_preprocessed")
    cases.CPU = CUDA  # where combinations are trained


def train(combination: Combination, precision: str | None, folder: Path, loss: dict[str, Any] | None = None) -> Steps:
    """Initialises a trainer, trains, and validates once; `loss` are settings of the loss."""
    torch.manual_seed(0)
    with pretended_cuda() as log:
        trainer = combination.trainer(folder, loss, num_epochs=2, num_iterations_per_epoch=2, precision=precision)
        trainer.initialize()
        batch = make_batch(trainer, combination)
        batch = {"data": batch["data"].pin_memory(), "target": _pinned(batch["target"])}
        trainer.network.train()
        losses, late_reads = [], []
        for _ in range(TRAIN_STEPS):
            log.reset()
            losses.append(trainer.train_step(batch)["loss"])
            late_reads += log.late_reads
        waits, staged, launches = log.waits, log.staged, log.launches
        trainer.network.eval()
        log.reset()
        with torch.no_grad():
            validation = trainer.validation_step(batch)
        values = {name: value.tolist() for name, value in validation.items()}
        return Steps([float(loss) for loss in losses], values, waits, log.waits, staged, launches, late_reads)


def _pinned(target: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    return [part.pin_memory() for part in target] if isinstance(target, list) else target.pin_memory()
