"""The soft Dice loss by its name."""

from __future__ import annotations

from torch import Tensor

from nnunetv2.training.loss.default_loss import base_loss
from nnunetv2.training.loss.loss_config import DenseLossConfig, LabelTask
from nnunetv2.training.loss.named_loss import DenseLoss, register_loss


@register_loss("dice")
class SoftDice(DenseLoss):
    """Soft Dice of labels or regions, as `nnUNetTrainerDiceLoss` trains with; it has no settings."""

    def __init__(self, config: DenseLossConfig, task: LabelTask) -> None:
        super().__init__(config, task)
        self.loss = base_loss(task, task.batch_dice, is_ddp=task.is_ddp, weight_ce=0)
        if task.ignore_label is None:  # the compound loss masks ignored pixels and is not needed where there are none
            self.loss = self.loss.dc

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loss(logits, target)
