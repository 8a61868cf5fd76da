"""Skeleton Recall: the share of the centrelines of thin structures that is found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinov3.utils.yaml_config import require_range
from nnunetv2.training.loss.default_loss import base_loss
from nnunetv2.training.loss.dice import one_hot_like, sum_over_ranks
from nnunetv2.training.loss.loss_config import DenseLossConfig, LabelTask
from nnunetv2.training.loss.named_loss import DenseLoss, register_loss
from nnunetv2.training.loss.tubes import tubes_of, without_tubes

_SMOOTH = 1e-5  # as of nnU-Net's Dice


class SkeletonRecallTerm(nn.Module):
    """Negative mean soft recall of the tubes around the centrelines.

    For a class c with tube T_c and probabilities p_c, the recall is (sum of p_c T_c + s) / (sum of T_c + s), per
    sample, or over the whole (under DDP: global) batch with `task.batch_dice`. A class without tube is left out of
    the mean, so that absent classes do not weaken the others. Without any tube, the term is 0. Background has none.

    Args:
        task: the labels.
        smooth: s.

    Source: see `nnunetv2.training.loss.tubes`.
    """

    def __init__(self, task: LabelTask, smooth: float = _SMOOTH) -> None:
        super().__init__()
        self.task, self.smooth = task, smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar in [-1, 0] of logits (B, K, *spatial) and a target (B, C, *spatial), see `tubes`."""
        tubes = tubes_of(target, self.task)
        if self.task.has_regions:
            probabilities, tubes = torch.sigmoid(logits), tubes.to(logits.dtype)
        else:
            probabilities, tubes = torch.softmax(logits, 1)[:, 1:], one_hot_like(logits, tubes)[:, 1:]
        found, size = self._sums(probabilities * tubes), self._sums(tubes)
        recall = (found + self.smooth) / (size + self.smooth).clamp_min(torch.finfo(size.dtype).tiny)
        occurs = size > 0
        per_sample = (recall * occurs).sum(1) / occurs.sum(1).clamp_min(1)
        return -per_sample.sum() / occurs.any(1).sum().clamp_min(1)

    def _sums(self, values: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C), or (1, C) over the batch."""
        dtype = torch.promote_types(values.dtype, torch.float32)
        sums = values.sum(tuple(range(2, values.ndim)), dtype=dtype)
        if not self.task.batch_dice:
            return sums
        sums = sums.sum(0)
        return (sum_over_ranks(sums) if self.task.is_ddp else sums)[None]


@register_loss("skeleton_recall")
class SkeletonRecall(DenseLoss):
    """nnU-Net's Dice and cross-entropy plus Skeleton Recall, for thin structures such as vessels."""

    @dataclass
    class Config(DenseLossConfig):
        """Loss for thin structures. Source: Kirchhoff et al. 2024, arXiv:2404.03010."""

        weight_ce: float = 1.0
        """Weight of the cross-entropy beside the Dice, which has 1."""
        skeleton_recall: float = 1.0
        """Weight of Skeleton Recall."""

        def __post_init__(self) -> None:
            require_range("loss.weight_ce", self.weight_ce, 0)
            require_range("loss.skeleton_recall", self.skeleton_recall, 0)

    def __init__(self, config: Config, task: LabelTask) -> None:
        super().__init__(config, task)
        self.task, self.weight = task, config.skeleton_recall
        self.base = base_loss(task, task.batch_dice, is_ddp=task.is_ddp, weight_ce=config.weight_ce)
        self.term = SkeletonRecallTerm(task)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = self.base(logits, without_tubes(target, self.task))
        return loss if self.weight == 0 else loss + self.weight * self.term(logits, target)
