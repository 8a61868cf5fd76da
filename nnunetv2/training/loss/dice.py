"""Soft Dice losses and the soft confusion counts behind them.

Shapes: B batch, C channels (classes or regions), `*spatial` the two or three image axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from nnunetv2.utilities.ddp_allgather import AllGatherGrad

_SMALLEST_DENOMINATOR = 1e-8


def one_hot_like(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Brings a target to the float32 one-hot form of `prediction`, without gradients.

    Args:
        prediction: (B, C, *spatial).
        target: label map (B, *spatial) or (B, 1, *spatial), or already one-hot (B, C, *spatial).

    Returns:
        (B, C, *spatial) float32.
    """
    with torch.no_grad():
        if target.ndim == prediction.ndim - 1:
            target = target.unsqueeze(1)
        if target.shape == prediction.shape:
            return target.float()
        encoded = torch.zeros(prediction.shape, dtype=torch.float32, device=prediction.device)
        return encoded.scatter_(1, target.long(), 1)


def get_tp_fp_fn_tn(
    net_output: torch.Tensor,
    gt: torch.Tensor,
    axes: Sequence[int] | None = None,
    mask: torch.Tensor | None = None,
    square: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Soft counts of true positives, false positives, false negatives and true negatives.

    Args:
        net_output: probabilities (or hard 0/1 decisions), (B, C, *spatial), in [0, 1].
        gt: label map (B, *spatial) or (B, 1, *spatial), or one-hot (B, C, *spatial).
        axes: axes that are summed over; `None` are the spatial ones, an empty sequence sums over none.
        mask: (B, 1, *spatial), 1 (or True) where a voxel counts.
        square: square each voxel's contribution before summation.

    Returns:
        Four float32 tensors; with the default axes each is (B, C).
    """
    wanted = one_hot_like(net_output, gt)
    rejected, unwanted = 1 - net_output, 1 - wanted
    summed_axes = tuple(range(2, net_output.ndim)) if axes is None else tuple(axes)

    def count(contribution: torch.Tensor) -> torch.Tensor:
        if mask is not None:
            contribution = contribution * mask
        if square:
            contribution = contribution**2
        return contribution.sum(summed_axes, dtype=torch.float32) if summed_axes else contribution

    return (
        count(net_output * wanted),
        count(net_output * unwanted),
        count(rejected * wanted),
        count(rejected * unwanted),
    )


def sum_over_ranks(counts: torch.Tensor) -> torch.Tensor:
    """Adds up equally shaped counts of all distributed ranks, differentiably."""
    return AllGatherGrad.apply(counts).sum(0, dtype=torch.float32)


class SoftDiceLoss(nn.Module):
    """Negative mean soft Dice from true positives, false positives and false negatives.

    Args:
        apply_nonlin: turns the network's output into probabilities; `None` takes it as it is.
        batch_dice: one Dice per class over the whole (under DDP: global) batch, not one per sample.
        do_bg: whether channel 0 takes part.
        smooth: added to numerator and denominator; keeps empty classes defined.
        ddp: add up the counts of all ranks; only matters with `batch_dice`.
        clip_tp: lower bound of the true-positive count.
    """

    def __init__(
        self,
        apply_nonlin: Callable[[torch.Tensor], torch.Tensor] | None = None,
        batch_dice: bool = False,
        do_bg: bool = True,
        smooth: float = 1.0,
        ddp: bool = True,
        clip_tp: float | None = None,
    ) -> None:
        super().__init__()
        self.apply_nonlin, self.smooth, self.clip_tp = apply_nonlin, smooth, clip_tp
        self.batch_dice, self.do_bg, self.ddp = batch_dice, do_bg, ddp

    def forward(self, x: torch.Tensor, y: torch.Tensor, loss_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Loss in [-1, 0].

        Args:
            x: network output (B, C, *spatial).
            y: target as in `one_hot_like`.
            loss_mask: (B, 1, *spatial), 1 (or True) where a voxel counts.
        """
        probabilities = x if self.apply_nonlin is None else self.apply_nonlin(x)
        spatial = tuple(range(2, x.ndim))
        axes = (0, *spatial) if self.batch_dice else spatial
        tp, fp, fn, _ = get_tp_fp_fn_tn(probabilities, y, axes, loss_mask)
        if self.batch_dice and self.ddp:
            tp, fp, fn = (sum_over_ranks(counts) for counts in (tp, fp, fn))
        if self.clip_tp is not None:
            tp = tp.clamp_min(self.clip_tp)

        dice = (2 * tp + self.smooth) / (2 * tp + fp + fn + self.smooth).clamp_min(_SMALLEST_DENOMINATOR)
        return -(dice if self.do_bg else dice[..., 1:]).mean()


class MemoryEfficientSoftDiceLoss(nn.Module):
    """Negative mean soft Dice from the intersection and the two sums; same value as `SoftDiceLoss`, fewer temporaries.

    Arguments as in `SoftDiceLoss`.
    """

    def __init__(
        self,
        apply_nonlin: Callable[[torch.Tensor], torch.Tensor] | None = None,
        batch_dice: bool = False,
        do_bg: bool = True,
        smooth: float = 1.0,
        ddp: bool = True,
    ) -> None:
        super().__init__()
        self.apply_nonlin, self.smooth = apply_nonlin, smooth
        self.batch_dice, self.do_bg, self.ddp = batch_dice, do_bg, ddp

    def forward(self, x: torch.Tensor, y: torch.Tensor, loss_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Loss in [-1, 0].

        Args:
            x: network output (B, C, *spatial).
            y: target as in `one_hot_like`.
            loss_mask: (B, 1, *spatial), 1 (or True) where a voxel counts.
        """
        probabilities = x if self.apply_nonlin is None else self.apply_nonlin(x)
        wanted = one_hot_like(probabilities, y)
        if not self.do_bg:
            probabilities, wanted = probabilities[:, 1:], wanted[:, 1:]
        # The mask is 0 or 1, so masking the target masks the intersection as well.
        with torch.no_grad():
            wanted = wanted if loss_mask is None else wanted * loss_mask
        counted = probabilities if loss_mask is None else probabilities * loss_mask

        intersection = self._reduce(probabilities * wanted)
        total = self._reduce(wanted) + self._reduce(counted)
        dice = (2 * intersection + self.smooth) / (total + self.smooth).clamp_min(_SMALLEST_DENOMINATOR)
        return -dice.mean()

    def _reduce(self, values: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, C), or (C,) over the global batch with `batch_dice`."""
        sums = values.sum(tuple(range(2, values.ndim)), dtype=torch.float32)
        if not self.batch_dice:
            return sums
        # Summing before gathering lets ranks hold different numbers of samples.
        sums = sums.sum(0)
        return sum_over_ranks(sums) if self.ddp else sums
