"""Trainers with Adam and AdamW at three learning rates."""

from __future__ import annotations

from typing import Any

import torch

from dinov3.utils.fused_optimizers import fused_on
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerAdam(nnUNetTrainer):
    """AdamW with AMSGrad."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        settings = {"weight_decay": self.weight_decay, "amsgrad": True, "fused": fused_on(self.device)}
        optimizer = torch.optim.AdamW(self.parameter_groups(), self.initial_lr, **settings)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)


class nnUNetTrainerVanillaAdam(nnUNetTrainer):
    """Adam with L2 regularisation: weight decay is part of the gradient."""

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        settings = {"weight_decay": self.weight_decay, "fused": fused_on(self.device)}
        optimizer = torch.optim.Adam(self.parameter_groups(), self.initial_lr, **settings)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)


class nnUNetTrainerVanillaAdam1en3(nnUNetTrainerVanillaAdam):
    initial_lr = 1e-3


class nnUNetTrainerVanillaAdam3en4(nnUNetTrainerVanillaAdam):
    initial_lr = 3e-4


class nnUNetTrainerAdam1en3(nnUNetTrainerAdam):
    initial_lr = 1e-3


class nnUNetTrainerAdam3en4(nnUNetTrainerAdam):
    initial_lr = 3e-4
