"""Cross-entropy by its name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dinov3.utils.yaml_config import require_range
from nnunetv2.errors import UsageError
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.loss_config import DenseLossConfig, LabelTask
from nnunetv2.training.loss.named_loss import DenseLoss, register_loss, require_labels


@register_loss("ce")
class CrossEntropy(DenseLoss):
    """Cross-entropy of labels, as `nnUNetTrainerCELoss` trains with; 0 if no pixel of a batch is annotated."""

    @dataclass
    class Config(DenseLossConfig):
        """Cross-entropy alone, without Dice."""

        label_smoothing: float = 0.0
        """Share of the probability that is spread evenly over all classes, 0 to 1."""
        class_weights: list[float] | None = None
        """One factor per class, background first; null: all classes weigh the same."""

        def __post_init__(self) -> None:
            require_range("loss.label_smoothing", self.label_smoothing, 0, 1)

    def __init__(self, config: Config, task: LabelTask) -> None:
        super().__init__(config, task)
        require_labels(self, task)
        weights = config.class_weights
        if weights is not None and (len(weights) != task.num_outputs or min(weights) < 0):
            raise UsageError(
                f"loss.class_weights={weights} must be {task.num_outputs} numbers of at least 0, one per class"
            )
        options = {
            "label_smoothing": config.label_smoothing,
            "weight": None if weights is None else torch.tensor(weights),
        }
        # Without its Dice, the sum is the cross-entropy, and defined where a batch has no annotated pixel.
        self.loss = DC_and_CE_loss({}, options, weight_dice=0, ignore_label=task.ignore_label)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loss(logits, target)
