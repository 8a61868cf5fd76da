"""The default training with a linear warm-up of the learning rate."""

from __future__ import annotations

import os
from typing import Any

import torch

from dinov3.utils.fused_optimizers import fused_on
from nnunetv2.training.lr_scheduler.warmup import Lin_incr_LRScheduler, PolyLRScheduler_offset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_WARMUP, _TRAIN = "warmup_all", "train"


class nnUNetTrainer_warmup(nnUNetTrainer):
    """Warms up to `initial_lr` over the first epochs, then decays to 0 at the last one.

    The two stages, `warmup_all` and `train`, share one optimiser and have one schedule each.
    """

    warmup_duration_whole_net = 50  # epochs
    training_stage: str | None = None

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Hook: returns the optimiser of both stages."""
        settings = {"momentum": self.momentum, "nesterov": True, "weight_decay": self.weight_decay}
        return torch.optim.SGD(self.parameter_groups(), self.initial_lr, **settings, fused=fused_on(self.device))

    def configure_optimizers(self, stage: str = _WARMUP) -> tuple[torch.optim.Optimizer, Any]:
        """Returns optimiser and schedule of a stage; reuses the current ones if they belong to that stage.

        Raises:
            ValueError: the stage is unknown.
        """
        if stage not in (_WARMUP, _TRAIN):
            raise ValueError(f"the stages of a training with warm-up are {_WARMUP} and {_TRAIN}, not {stage!r}")
        if stage == self.training_stage:
            return self.optimizer, self.lr_scheduler
        self.training_stage = stage
        # The second stage continues with the optimiser state of the first.
        optimizer = self.make_optimizer() if self.optimizer is None else self.optimizer
        duration = self.warmup_duration_whole_net
        if stage == _WARMUP:
            return optimizer, Lin_incr_LRScheduler(optimizer, self.initial_lr, duration)
        return optimizer, PolyLRScheduler_offset(optimizer, self.initial_lr, self.num_epochs, duration)

    def stage_of(self, epoch: int) -> str:
        """Returns the stage that an epoch, from 0 on, belongs to."""
        return _WARMUP if epoch < self.warmup_duration_whole_net else _TRAIN

    def _enter_stage(self) -> None:
        self.optimizer, self.lr_scheduler = self.configure_optimizers(self.stage_of(self.current_epoch))

    def on_train_epoch_start(self) -> None:
        self._enter_stage()
        super().on_train_epoch_start()

    def load_checkpoint(self, filename_or_checkpoint: dict | str | os.PathLike) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        self._enter_stage()
