"""The loss of Mask2Former by its name: matched masks and classes of queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from dinov3.eval.segmentation.settings.training import M2FTrainConfig
from nnunetv2.training.loss.loss_config import LabelTask, QueryLossConfig
from nnunetv2.training.loss.named_loss import QueryLoss, register_loss


@register_loss("mask_classification")
class MaskClassification(MaskClassificationLoss, QueryLoss):
    """`MaskClassificationLoss`, made from settings."""

    @dataclass
    class Config(M2FTrainConfig, QueryLossConfig):
        """Loss of the Mask2Former head. Source: Cheng et al. 2022, arXiv:2112.01527, section 4.1."""

        section: ClassVar[str] = "m2f_train"

    def __init__(self, config: Config, task: LabelTask) -> None:
        super().__init__(task.num_outputs, **vars(config))
