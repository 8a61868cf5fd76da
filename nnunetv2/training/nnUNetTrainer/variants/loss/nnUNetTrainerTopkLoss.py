"""Trainers with the cross-entropy of the hardest 10 % of the voxels."""

from __future__ import annotations

from torch import nn

from nnunetv2.training.loss.compound_losses import DC_and_topk_loss
from nnunetv2.training.loss.robust_ce_loss import TopKLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.single_losses import ignore_index, require_label_map, supervised

_HARDEST = 10  # percent


class nnUNetTrainerTopk10Loss(nnUNetTrainer):
    label_smoothing = 0.0

    def _build_loss(self) -> nn.Module:
        loss = TopKLoss(ignore_index=ignore_index(self), k=_HARDEST, label_smoothing=self.label_smoothing)
        return supervised(self, loss)


class nnUNetTrainerTopk10LossLS01(nnUNetTrainerTopk10Loss):
    label_smoothing = 0.1


class nnUNetTrainerDiceTopK10Loss(nnUNetTrainer):
    """Adds the Dice loss."""

    def _build_loss(self) -> nn.Module:
        require_label_map(self)
        dice = {
            "batch_dice": self.configuration_manager.batch_dice,
            "smooth": 1e-5,
            "do_bg": False,
            "ddp": self.is_ddp,
        }
        loss = DC_and_topk_loss(dice, {"k": _HARDEST}, ignore_label=self.label_manager.ignore_label)
        return supervised(self, loss)
