"""Trainers with cross-entropy only."""

from __future__ import annotations

from torch import nn

from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.single_losses import ignore_index, supervised


class nnUNetTrainerCELoss(nnUNetTrainer):
    def _build_loss(self) -> nn.Module:
        return supervised(self, RobustCrossEntropyLoss(ignore_index=ignore_index(self)))


class nnUNetTrainerCELoss_5epochs(nnUNetTrainerCELoss):
    num_epochs = 5
