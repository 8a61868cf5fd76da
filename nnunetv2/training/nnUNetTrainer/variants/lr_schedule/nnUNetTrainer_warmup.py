"""The default training behind a linear warm-up of the learning rate."""

from __future__ import annotations

import os
from typing import Any

import torch

from nnunetv2.training.lr_scheduler.warmup import Lin_incr_LRScheduler, PolyLRScheduler_offset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_WARMUP, _TRAIN = "warmup_all", "train"


class nnUNetTrainer_warmup(nnUNetTrainer):
    """Raises the rate to `initial_lr` over the first epochs, then lets it fall to 0 at the last one.

    Two stages, `warmup_all` and `train`, share one optimiser and each have a schedule.
    """

    warmup_duration_whole_net = 50  # epochs
    training_stage: str | None = None

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Hook: returns the optimiser of both stages."""
        settings = {"momentum": self.momentum, "nesterov": True, "weight_decay": self.weight_decay}
        return torch.optim.SGD(self.parameter_groups(), self.initial_lr, **settings)

    def configure_optimizers(self, stage: str = _WARMUP) -> tuple[torch.optim.Optimizer, Any]:
        """Returns the optimiser and the schedule of a stage; those in use, if they are of that stage.

        Raises:
            ValueError: there is no such stage.
        """
        if stage not in (_WARMUP, _TRAIN):
            raise ValueError(f"the stages of a training with warm-up are {_WARMUP} and {_TRAIN}, not {stage!r}")
        if stage == self.training_stage:
            return self.optimizer, self.lr_scheduler
        self.training_stage = stage
        # The second stage goes on with what the optimiser has accumulated in the first one.
        optimizer = self.make_optimizer() if self.optimizer is None else self.optimizer
        duration = self.warmup_duration_whole_net
        if stage == _WARMUP:
            return optimizer, Lin_incr_LRScheduler(optimizer, self.initial_lr, duration)
        return optimizer, PolyLRScheduler_offset(optimizer, self.initial_lr, self.num_epochs, duration)

    def _enter_stage(self) -> None:
        stage = _WARMUP if self.current_epoch < self.warmup_duration_whole_net else _TRAIN
        self.optimizer, self.lr_scheduler = self.configure_optimizers(stage)

    def on_train_epoch_start(self) -> None:
        self._enter_stage()
        super().on_train_epoch_start()

    def load_checkpoint(self, filename_or_checkpoint: dict | str | os.PathLike) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        self._enter_stage()
