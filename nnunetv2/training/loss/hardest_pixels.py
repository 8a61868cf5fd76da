"""Losses with the cross-entropy of the hardest pixels, by their names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dinov3.utils.yaml_config import require_range
from nnunetv2.errors import UsageError
from nnunetv2.training.loss.compound_losses import DC_and_topk_loss
from nnunetv2.training.loss.loss_config import DenseLossConfig, LabelTask
from nnunetv2.training.loss.named_loss import DenseLoss, register_loss, require_labels
from nnunetv2.training.loss.robust_ce_loss import TopKLoss

_SMOOTH = 1e-5  # of the Dice, as in nnU-Net's default loss


@dataclass
class HardestPixelsConfig(DenseLossConfig):
    """What both losses have in common."""

    k: float = 10.0
    """Percentage of the pixels that counts: those with the highest cross-entropy; above 0, at most 100."""
    label_smoothing: float = 0.0
    """Share of the probability that is spread evenly over all classes, 0 to 1."""

    def __post_init__(self) -> None:
        require_range("loss.k", self.k, 0, 100)
        require_range("loss.label_smoothing", self.label_smoothing, 0, 1)
        if self.k == 0:
            raise UsageError("loss.k=0 leaves no pixel; it is a percentage above 0")


@register_loss("topk")
class TopK(DenseLoss):
    """Cross-entropy of the hardest tenth of the pixels, as `nnUNetTrainerTopk10Loss` trains with; labels only."""

    @dataclass
    class Config(HardestPixelsConfig):
        """Cross-entropy of the hardest pixels of a batch."""

    def __init__(self, config: Config, task: LabelTask) -> None:
        super().__init__(config, task)
        require_labels(self, task)
        ignored = {} if task.ignore_label is None else {"ignore_index": task.ignore_label}
        self.loss = TopKLoss(k=config.k, label_smoothing=config.label_smoothing, **ignored)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loss(logits, target)


@register_loss("dice_topk")
class DiceTopK(DenseLoss):
    """Soft Dice plus `topk`, as `nnUNetTrainerDiceTopK10Loss` trains with; labels only."""

    @dataclass
    class Config(HardestPixelsConfig):
        """Dice and the cross-entropy of the hardest pixels of a batch."""

        weight_ce: float = 1.0
        """Weight of the cross-entropy beside the Dice, which has 1."""

        def __post_init__(self) -> None:
            HardestPixelsConfig.__post_init__(self)
            require_range("loss.weight_ce", self.weight_ce, 0)

    def __init__(self, config: Config, task: LabelTask) -> None:
        super().__init__(config, task)
        require_labels(self, task)
        self.loss = DC_and_topk_loss(
            {"batch_dice": task.batch_dice, "smooth": _SMOOTH, "do_bg": False, "ddp": task.is_ddp},
            {"k": config.k, "label_smoothing": config.label_smoothing},
            weight_ce=config.weight_ce,
            ignore_label=task.ignore_label,
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loss(logits, target)
