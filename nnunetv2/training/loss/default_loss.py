"""The loss that nnU-Net trains with, chosen by the kind of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper, deep_supervision_weights
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

_SMOOTH = 1e-5
# DDP without torch.compile refuses parameters that get no gradient, so the lowest output may not have weight 0 there.
_UNUSED_OUTPUT_WEIGHT_DDP = 1e-6


def build_loss(
    label_manager: LabelManager,
    batch_dice: bool,
    deep_supervision_scales: Sequence[Sequence[float]] | None,
    *,
    is_ddp: bool = False,
    is_compiled: bool = False,
) -> nn.Module:
    """Dice + cross-entropy for labels, Dice + binary cross-entropy for regions, over all supervised resolutions.

    Args:
        label_manager: tells regions from labels and names the ignore label.
        batch_dice: compute the Dice over the batch instead of per sample.
        deep_supervision_scales: one entry per supervised output, highest resolution first; `None` for a single output.
        is_ddp: Dice counts are added up over the ranks.
        is_compiled: compile the Dice loss with `torch.compile`.
    """
    loss = base_loss(label_manager, batch_dice, is_ddp=is_ddp)
    if is_compiled:
        loss.dc = torch.compile(loss.dc)
    return over_resolutions(loss, deep_supervision_scales, is_ddp=is_ddp, is_compiled=is_compiled)


def over_resolutions(
    loss: nn.Module,
    deep_supervision_scales: Sequence[Sequence[float]] | None,
    *,
    is_ddp: bool = False,
    is_compiled: bool = False,
) -> nn.Module:
    """Applies the loss of one output to all supervised ones, weighted; the other arguments as in `build_loss`."""
    if deep_supervision_scales is None:
        return loss
    unused_weight = _UNUSED_OUTPUT_WEIGHT_DDP if is_ddp and not is_compiled else 0.0
    return DeepSupervisionWrapper(loss, deep_supervision_weights(len(deep_supervision_scales), unused_weight))


def base_loss(
    label_manager: LabelManager,
    batch_dice: bool,
    *,
    is_ddp: bool = False,
    smooth: float = _SMOOTH,
    weight_ce: float = 1,
    weight_dice: float = 1,
) -> nn.Module:
    """The loss of one output at one resolution.

    Args:
        label_manager: as in `build_loss`, like the other arguments.
        smooth: added to numerator and denominator of the Dice.
        weight_ce: factor of the cross-entropy.
        weight_dice: factor of the Dice.
    """
    dice_kwargs = {"batch_dice": batch_dice, "smooth": smooth, "ddp": is_ddp}
    if label_manager.has_regions:
        return DC_and_BCE_loss(
            {},
            {**dice_kwargs, "do_bg": True},
            weight_ce=weight_ce,
            weight_dice=weight_dice,
            use_ignore_label=label_manager.ignore_label is not None,
            dice_class=MemoryEfficientSoftDiceLoss,
        )
    return DC_and_CE_loss(
        {**dice_kwargs, "do_bg": False},
        {},
        weight_ce=weight_ce,
        weight_dice=weight_dice,
        ignore_label=label_manager.ignore_label,
        dice_class=MemoryEfficientSoftDiceLoss,
    )
