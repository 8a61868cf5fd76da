"""Trainer with soft-clDice beside Dice and cross-entropy, for the connectivity of thin structures."""

from __future__ import annotations

from torch import nn

from nnunetv2.training.loss.soft_cldice import SoftClDice
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.single_losses import label_task, supervised


class nnUNetTrainerSoftClDice(nnUNetTrainer):
    def _build_loss(self) -> nn.Module:
        return supervised(self, SoftClDice(SoftClDice.Config(), label_task(self)))
