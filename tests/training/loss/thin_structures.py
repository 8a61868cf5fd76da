"""Small targets with thin structures, and logits of given probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunetv2.training.loss.loss_config import LabelTask

CERTAIN = 1e4  # logit; its softmax and sigmoid are 0 or 1 in double precision


def task_of(
    num_outputs: int, *, regions: bool = False, ignore: int | None = None, batch_dice: bool = False, ddp: bool = False
) -> LabelTask:
    return LabelTask(num_outputs, regions, ignore, batch_dice, ddp)


def logits_of(probabilities: Tensor) -> Tensor:
    """Logits (B, 2, *spatial) whose softmax gives class 1 the probabilities (*spatial), in double precision."""
    foreground = torch.logit(probabilities.double()).clamp(-CERTAIN, CERTAIN)
    return torch.stack((torch.zeros_like(foreground), foreground))[None]


def line(*, missing: int | None = None, row: int = 2) -> Tensor:
    """A line of 7 pixels in (5, 11), from column 2 to 8."""
    mask = torch.zeros(5, 11)
    mask[row, 2:9] = 1
    if missing is not None:
        mask[row, missing] = 0
    return mask


def bars() -> tuple[Tensor, Tensor]:
    """A bar of 5 x 11 pixels in (9, 15), and the bar of 3 x 9 inside it."""
    outer, inner = torch.zeros(2, 9, 15)
    outer[2:7, 2:13] = 1
    inner[3:6, 3:12] = 1
    return outer, inner


def ring(*, is_open: bool = False) -> Tensor:
    """The 16 border pixels of 5 x 5, in (9, 9)."""
    mask = torch.zeros(9, 9)
    mask[2:7, 2:7] = 1
    mask[3:6, 3:6] = 0
    if is_open:
        mask[2, 4] = 0
    return mask


def two_classes() -> Tensor:
    """A bar of 3 x 9 in (1, 7, 13): class 1 on the left, class 2 on the right."""
    labels = torch.zeros(1, 7, 13, dtype=torch.int16)
    labels[0, 2:5, 2:7] = 1
    labels[0, 2:5, 7:11] = 2
    return labels
