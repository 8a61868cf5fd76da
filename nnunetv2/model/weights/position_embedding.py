"""Fits learned position embeddings to a model of another image size, with or without a class-token slot."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nnunetv2.errors import DataError

_NAME = "pos_embed"


def fit_position_embedding(
    weights: Mapping[str, Tensor], expected: Tensor, *, has_class_slot: bool
) -> tuple[dict[str, Tensor], str | None]:
    """Converts the position embedding of a file to a model's form.

    If the model has no class-token slot, the file's slot is added to the class token itself, which is equivalent; a
    slot that the file lacks is set to zero. The patch part is resampled (bicubic, antialiased) to another size.

    Args:
        weights: tensors with timm's names.
        expected: the model's embedding, (1, M, D) for M patches of a square image, or (1, 1 + M, D).
        has_class_slot: the model's embedding has a class-token slot.

    Returns:
        The weights, and the resampling as `37x37 to 16x16`; None if nothing was resampled.

    Raises:
        DataError: the embedding is not that of a square image.
    """
    weights = dict(weights)
    given = weights.get(_NAME)
    if given is None or given.ndim != 3 or given.shape[-1] != expected.shape[-1]:
        return weights, None  # the caller's shape check reports it
    side = math.isqrt(given.shape[1])
    num_slots = given.shape[1] - side**2
    if num_slots > 1:
        raise DataError(f"its position embedding {tuple(given.shape)} is not one of a square image")
    slot, patches = given[:, :num_slots], given[:, num_slots:]
    if num_slots and not has_class_slot and "cls_token" in weights:
        weights["cls_token"] = weights["cls_token"] + slot
    if has_class_slot and not num_slots:
        slot = given.new_zeros(1, 1, given.shape[-1])
    new_side = math.isqrt(expected.shape[1])
    if side != new_side:
        patches = _resampled(patches, new_side)
    weights[_NAME] = torch.cat([slot, patches], dim=1) if has_class_slot else patches
    return weights, None if side == new_side else f"{side}x{side} to {new_side}x{new_side}"


def _resampled(patches: Tensor, side: int) -> Tensor:
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(patches, new_size=[side, side], num_prefix_tokens=0)
