"""Loss of a dense head, which predicts one logit per class and pixel."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.data.labels import IGNORE_INDEX
from dinov3.eval.segmentation.settings.training import TrainConfig
from dinov3.utils.processes.process_group import is_distributed


class MultiSegmentationLoss(nn.Module):
    """Weighted sum of cross entropy and Dice loss, both excluding ignored pixels.

    Everything is computed in at least float32. Cross entropy is averaged over all labelled pixels of all processes, so
    that the mean over the processes equals the loss of a single process with all images. (Meta's code divides by all
    pixels, including ignored ones, and uses only the Dice loss if that has a weight.)

    Args:
        diceloss_weight: At least 0.
        celoss_weight: At least 0.

    Raises:
        ValueError: If a weight is negative, or none is positive.
    """

    def __init__(
        self, diceloss_weight: float = TrainConfig.diceloss_weight, celoss_weight: float = TrainConfig.celoss_weight
    ) -> None:
        super().__init__()
        if min(diceloss_weight, celoss_weight) < 0 or max(diceloss_weight, celoss_weight) <= 0:
            raise ValueError(
                f"A diceloss_weight of {diceloss_weight} and a celoss_weight of {celoss_weight} were given; give "
                f"weights of at least 0, and one above it."
            )
        self.diceloss_weight = diceloss_weight
        self.celoss_weight = celoss_weight

    def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
        """Takes (B, K, h, w) logits and (B, H, W) labels, 255 to ignore; returns the weighted sum, a scalar."""
        return self.total(self.terms(pred, gt))

    def terms(self, pred: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """Unweighted terms `loss_ce` and `loss_dice`, unless their weight is 0. Logits are resized to the labels."""
        with torch.autocast(pred.device.type, enabled=False):
            pred = pred.to(torch.promote_types(pred.dtype, torch.float32))
            if pred.shape[-2:] != gt.shape[-2:]:
                pred = F.interpolate(pred, size=gt.shape[-2:], mode="bilinear", align_corners=False)
            losses = {}
            if self.celoss_weight:
                losses["loss_ce"] = cross_entropy(pred, gt)
            if self.diceloss_weight:
                losses["loss_dice"] = dice_loss(pred, gt)
            return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Weighted sum of what `terms` returned."""
        weights = {"loss_ce": self.celoss_weight, "loss_dice": self.diceloss_weight}
        return torch.stack([weights[name] * value for name, value in losses.items()]).sum()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled pixels; 0, with a gradient of 0, if no process has any.

    The divisor is the mean number of labelled pixels per process.
    """
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    count = (labels != IGNORE_INDEX).sum().to(total.dtype)
    if is_distributed():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return total / torch.where(count > 0, count, 1.0)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the soft Dice, with 1 added to numerator and denominator; mean over images and classes.

    Each image has equal weight, so that the mean is independent of the distribution of images to processes.

    Source: Milletari et al. 2016, "V-Net", section 3, arXiv:1606.04797, with plain instead of squared sums.
    """
    valid = labels != IGNORE_INDEX
    probabilities = logits.softmax(dim=1) * valid[:, None]
    one_hot = torch.zeros_like(logits).scatter_(1, labels.where(valid, 0)[:, None], 1.0) * valid[:, None]
    overlap = (probabilities * one_hot).sum(dim=(2, 3))
    sizes = probabilities.sum(dim=(2, 3)) + one_hot.sum(dim=(2, 3))
    return (1 - (2 * overlap + 1) / (sizes + 1)).mean()
