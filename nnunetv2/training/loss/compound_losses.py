"""Weighted sums of a soft Dice loss and a cross-entropy loss, with voxels that carry no annotation left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1


class _DiceAndLabelLoss(nn.Module):
    """Softmax Dice plus a loss `ce` of logits against a label map."""

    def __init__(self, dc: nn.Module, ce: nn.Module, weights: tuple[float, float], ignore_label: int | None) -> None:
        super().__init__()
        self.weight_dice, self.weight_ce = weights
        self.ignore_label = ignore_label
        self.ce = ce
        self.dc = dc

    def forward(self, net_output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss of logits (B, C, *spatial) against labels (B, 1, *spatial).

        A batch without any annotated voxel has no cross-entropy.

        Raises:
            ValueError: an ignore label is used with a one-hot target.
        """
        mask, dice_target = None, target
        if self.ignore_label is not None:
            if target.shape[1] != 1:
                raise ValueError(f"the ignore label needs label maps (B, 1, ...), the target is {tuple(target.shape)}")
            mask = target != self.ignore_label
            dice_target = torch.where(mask, target, 0)

        loss = net_output.new_zeros(())
        if self.weight_dice != 0:
            loss = loss + self.weight_dice * self.dc(net_output, dice_target, loss_mask=mask)
        if self.weight_ce != 0:
            cross_entropy = self.ce(net_output, target)
            if mask is not None:  # the mean over no voxel is NaN, with a gradient of 0
                cross_entropy = torch.where(mask.any(), cross_entropy, 0)
            loss = loss + self.weight_ce * cross_entropy
        # Nothing to learn from must still be something to call backward() on.
        return loss if loss.requires_grad or not net_output.requires_grad else loss + 0 * net_output.sum()


class DC_and_CE_loss(_DiceAndLabelLoss):
    """Softmax Dice plus cross-entropy for label maps.

    Args:
        soft_dice_kwargs: arguments of `dice_class` except `apply_nonlin`.
        ce_kwargs: arguments of `RobustCrossEntropyLoss`.
        weight_ce: factor of the cross-entropy; the two need not sum to one.
        weight_dice: factor of the Dice loss.
        ignore_label: label of voxels that take no part in either loss.
        dice_class: class of the Dice loss.
    """

    def __init__(
        self,
        soft_dice_kwargs: Mapping[str, Any],
        ce_kwargs: Mapping[str, Any],
        weight_ce: float = 1,
        weight_dice: float = 1,
        ignore_label: int | None = None,
        dice_class: type[nn.Module] = SoftDiceLoss,
    ) -> None:
        super().__init__(
            dice_class(apply_nonlin=softmax_helper_dim1, **soft_dice_kwargs),
            RobustCrossEntropyLoss(**_ignoring(ce_kwargs, ignore_label)),
            (weight_dice, weight_ce),
            ignore_label,
        )


class DC_and_topk_loss(_DiceAndLabelLoss):
    """Softmax Dice plus the cross-entropy of the hardest voxels.

    Arguments as in `DC_and_CE_loss`, but `ce_kwargs` are those of `TopKLoss`.
    """

    def __init__(
        self,
        soft_dice_kwargs: Mapping[str, Any],
        ce_kwargs: Mapping[str, Any],
        weight_ce: float = 1,
        weight_dice: float = 1,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(
            SoftDiceLoss(apply_nonlin=softmax_helper_dim1, **soft_dice_kwargs),
            TopKLoss(**_ignoring(ce_kwargs, ignore_label)),
            (weight_dice, weight_ce),
            ignore_label,
        )


class DC_and_BCE_loss(nn.Module):
    """Sigmoid Dice plus binary cross-entropy for regions, which may overlap.

    Args:
        bce_kwargs: arguments of `nn.BCEWithLogitsLoss`.
        soft_dice_kwargs: arguments of `dice_class` except `apply_nonlin`.
        weight_ce: factor of the cross-entropy.
        weight_dice: factor of the Dice loss.
        use_ignore_label: the target's last channel is 1 where a voxel takes no part.
        dice_class: class of the Dice loss.
    """

    def __init__(
        self,
        bce_kwargs: Mapping[str, Any],
        soft_dice_kwargs: Mapping[str, Any],
        weight_ce: float = 1,
        weight_dice: float = 1,
        use_ignore_label: bool = False,
        dice_class: type[nn.Module] = MemoryEfficientSoftDiceLoss,
    ) -> None:
        super().__init__()
        self.weight_ce, self.weight_dice = weight_ce, weight_dice
        self.use_ignore_label = use_ignore_label
        masked = {"reduction": "none"} if use_ignore_label else {}
        self.ce = nn.BCEWithLogitsLoss(**{**bce_kwargs, **masked})
        self.dc = dice_class(apply_nonlin=torch.sigmoid, **soft_dice_kwargs)

    def forward(self, net_output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss of logits (B, R, *spatial) against regions (B, R [+ 1], *spatial), bool or 0/1."""
        mask = None
        if self.use_ignore_label:
            target, mask = target[:, :-1], ~target[:, -1:].bool()
        dice = self.dc(net_output, target, loss_mask=mask)
        cross_entropy = self.ce(net_output, target.float())
        if mask is not None:
            cross_entropy = (cross_entropy * mask).sum() / mask.sum().clamp_min(1)
        return self.weight_ce * cross_entropy + self.weight_dice * dice


def _ignoring(ce_kwargs: Mapping[str, Any], ignore_label: int | None) -> dict[str, Any]:
    return dict(ce_kwargs) if ignore_label is None else {**ce_kwargs, "ignore_index": ignore_label}
