"""Trainers with Dice only, and with unsmoothed Dice plus cross-entropy."""

from __future__ import annotations

from torch import nn

from nnunetv2.training.loss.default_loss import base_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.single_losses import supervised


class nnUNetTrainerDiceLoss(nnUNetTrainer):
    def _build_loss(self) -> nn.Module:
        batch_dice = self.configuration_manager.batch_dice
        loss = base_loss(self.label_manager, batch_dice, is_ddp=self.is_ddp, weight_ce=0)
        # The bare Dice loss has no ignore label; the compound loss masks it.
        return supervised(self, loss if self.label_manager.has_ignore_label else loss.dc)


class nnUNetTrainerDiceCELoss_noSmooth(nnUNetTrainer):
    def _build_loss(self) -> nn.Module:
        batch_dice = self.configuration_manager.batch_dice
        return supervised(self, base_loss(self.label_manager, batch_dice, is_ddp=self.is_ddp, smooth=0))
