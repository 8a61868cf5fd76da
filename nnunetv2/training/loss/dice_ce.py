"""nnU-Net's own loss by its name: Dice and cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dinov3.utils.yaml_config import require_range
from nnunetv2.training.loss.default_loss import base_loss
from nnunetv2.training.loss.loss_config import DenseLossConfig, LabelTask
from nnunetv2.training.loss.named_loss import DenseLoss, register_loss


@register_loss("dice_ce")
class DiceCE(DenseLoss):
    """Soft Dice plus cross-entropy for labels, binary cross-entropy for regions."""

    @dataclass
    class Config(DenseLossConfig):
        """Loss of nnU-Net. Source: Isensee et al. 2021, "nnU-Net", doi:10.1038/s41592-020-01008-z."""

        weight_ce: float = 1.0
        """Weight of the cross-entropy beside the Dice, which has 1."""

        def __post_init__(self) -> None:
            require_range("loss.weight_ce", self.weight_ce, 0)

    def __init__(self, config: Config, task: LabelTask) -> None:
        super().__init__(config, task)
        self.loss = base_loss(task, task.batch_dice, is_ddp=task.is_ddp, weight_ce=config.weight_ce)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loss(logits, target)
