"""soft-clDice: agreement of centrelines, with skeletons that have a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.utils.yaml_config import require_range
from nnunetv2.training.loss.default_loss import base_loss
from nnunetv2.training.loss.dice import one_hot_like, sum_over_ranks
from nnunetv2.training.loss.loss_config import DenseLossConfig, LabelTask
from nnunetv2.training.loss.named_loss import DenseLoss, register_loss
from nnunetv2.training.loss.tubes import without_tubes

_SMOOTH = 1.0
_POOLING = {2: F.max_pool2d, 3: F.max_pool3d}  # by the number of axes


class SoftClDiceTerm(nn.Module):
    """Mean soft-clDice loss of the foreground.

    With soft skeletons S of probabilities P and target T: 1 - 2 p s / (p + s), where p = (sum of S(P) T + 1) / (sum of
    S(P) + 1) is the precision of the predicted centreline and s = (sum of S(T) P + 1) / (sum of S(T) + 1) the
    sensitivity. Per class and sample, or over the whole (under DDP: global) batch with `task.batch_dice`.

    Never use it alone: a constant prediction has an empty soft skeleton, and so a precision of 1.

    Args:
        task: the labels.
        iterations: erosions per skeleton; at least half the largest calibre in pixels.

    Source: Shit et al. 2021, "clDice - a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation",
    arXiv:2003.07311.
    """

    def __init__(self, task: LabelTask, iterations: int) -> None:
        super().__init__()
        self.task, self.iterations = task, iterations

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar in [0, 1] of logits (B, K, *spatial) and a target (B, C, *spatial); computed in at least float32."""
        task, target = self.task, without_tubes(target, self.task)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if task.has_regions:
            probabilities, wanted = torch.sigmoid(logits), target[:, : task.num_outputs].to(logits.dtype)
            counted = ~target[:, task.num_outputs :].bool() if task.ignore_label is not None else None
        else:
            counted = target != task.ignore_label if task.ignore_label is not None else None
            labels = target if counted is None else torch.where(counted, target, 0)
            probabilities, wanted = torch.softmax(logits, 1)[:, 1:], one_hot_like(logits, labels)[:, 1:]
        if counted is not None:
            probabilities, wanted = probabilities * counted, wanted * counted
        with torch.no_grad():
            target_skeleton = soft_skeleton(wanted, self.iterations)
        skeleton = soft_skeleton(probabilities, self.iterations)
        precision = self._ratio(skeleton * wanted, skeleton)
        sensitivity = self._ratio(target_skeleton * probabilities, target_skeleton)
        return (1 - 2 * precision * sensitivity / (precision + sensitivity)).mean()

    def _ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        return (self._sums(part) + _SMOOTH) / (self._sums(whole) + _SMOOTH)

    def _sums(self, values: Tensor) -> Tensor:
        """(B, C, *spatial) -> (B, C), or (C,) over the batch."""
        sums = values.sum(tuple(range(2, values.ndim)))
        if not self.task.batch_dice:
            return sums
        sums = sums.sum(0)
        return sum_over_ranks(sums) if self.task.is_ddp else sums


@register_loss("soft_cldice")
class SoftClDice(DenseLoss):
    """nnU-Net's Dice and cross-entropy plus soft-clDice, for the connectivity of thin structures; slow."""

    @dataclass
    class Config(DenseLossConfig):
        """Loss for the connectivity of thin structures. Source: Shit et al. 2021, arXiv:2003.07311."""

        weight_ce: float = 1.0
        """Weight of the cross-entropy."""
        weight_dice: float = 0.5
        """Weight of the Dice."""
        soft_cldice: float = 0.5
        """Weight of soft-clDice."""
        soft_cldice_iterations: int = 10
        """Erosions per skeleton of soft-clDice; at least half the largest calibre in pixels. Time grows with it."""

        def __post_init__(self) -> None:
            for name in ("weight_ce", "weight_dice", "soft_cldice"):
                require_range(f"loss.{name}", getattr(self, name), 0)
            require_range("loss.soft_cldice_iterations", self.soft_cldice_iterations, 1)

    def __init__(self, config: Config, task: LabelTask) -> None:
        super().__init__(config, task)
        self.task, self.weight = task, config.soft_cldice
        weights = {"weight_ce": config.weight_ce, "weight_dice": config.weight_dice}
        self.base = base_loss(task, task.batch_dice, is_ddp=task.is_ddp, **weights)
        self.term = SoftClDiceTerm(task, config.soft_cldice_iterations)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = self.base(logits, without_tubes(target, self.task))
        return loss if self.weight == 0 else loss + self.weight * self.term(logits, target)


def soft_skeleton(x: Tensor, iterations: int) -> Tensor:
    """Differentiable skeleton of values in [0, 1].

    Args:
        x: (B, C, *spatial) of 2 or 3 axes.
        iterations: erosions; structures thicker than twice that are not reduced to their centrelines.

    Returns:
        (B, C, *spatial), in [0, 1].
    """
    skeleton = torch.zeros_like(x)
    for _ in range(iterations + 1):
        smaller = eroded(x)
        ridge = F.relu(x - dilated(smaller))
        skeleton = skeleton + F.relu(ridge - skeleton * ridge)
        x = smaller
    return skeleton


def eroded(x: Tensor) -> Tensor:
    """Minimum over the cross of a pixel and its direct neighbours; beyond the border is plus infinity."""
    axes = x.ndim - 2
    kernels = [tuple(3 if axis == long else 1 for axis in range(axes)) for long in range(axes)]
    lines = [-_POOLING[axes](-x, size, 1, tuple(side // 2 for side in size)) for size in kernels]
    smallest = lines[0]
    for line in lines[1:]:
        smallest = torch.minimum(smallest, line)
    return smallest


def dilated(x: Tensor) -> Tensor:
    """Maximum over the 3 x 3 (x 3) neighbourhood; beyond the border is minus infinity."""
    return _POOLING[x.ndim - 2](x, 3, 1, 1)
