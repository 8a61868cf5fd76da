"""Trainers with Adan, from the optional package adan-pytorch, at four learning rates."""

from __future__ import annotations

from typing import Any

import torch

from nnunetv2.errors import UsageError
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.lr_scheduler.warmup import CosineAnnealingLR_offset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerAdan(nnUNetTrainer):
    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        try:
            from adan_pytorch import Adan
        except ImportError as err:
            raise UsageError(
                f"{type(self).__name__} needs the package adan-pytorch ({err}); install it: pip install adan-pytorch"
            ) from err
        optimizer = Adan(self.parameter_groups(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)


class nnUNetTrainerAdan1en3(nnUNetTrainerAdan):
    initial_lr = 1e-3


class nnUNetTrainerAdan3en4(nnUNetTrainerAdan):
    initial_lr = 3e-4


class nnUNetTrainerAdan1en1(nnUNetTrainerAdan):
    """Known to diverge at this rate."""

    initial_lr = 1e-1


class nnUNetTrainerAdanCosAnneal(nnUNetTrainerAdan):
    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        optimizer, _ = super().configure_optimizers()
        return optimizer, CosineAnnealingLR_offset(optimizer, self.num_epochs)
