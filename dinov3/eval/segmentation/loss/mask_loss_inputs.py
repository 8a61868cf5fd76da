"""Checks of the mask loss's inputs; only shapes are checked, which does not synchronise with the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Targets = Sequence[Mapping[str, Tensor]]
"""Per image `labels` (T,) int64 and `masks` (T, H, W), of volumes (T, D, H, W), bool or number in [0, 1]."""
_NUM_AXES = (3, 4)  # of masks


def check_targets(logits: Tensor, targets: Targets, valid: Tensor | None, num_classes: int) -> None:
    """Rejects targets that do not match the predictions.

    Args:
        logits: (L, B, Q, K + 1) class logits.
        targets: B of them.
        valid: (B, H, W), of volumes (B, D, H, W), or None.
        num_classes: K.

    Raises:
        ValueError: If numbers or sizes do not match.
    """
    _, batch_size, _, num_outputs = logits.shape
    if num_outputs != num_classes + 1:
        raise ValueError(f"Predictions have {num_outputs} classes; a loss of {num_classes} classes takes one more.")
    if len(targets) != batch_size or (valid is not None and len(valid) != batch_size):
        raise ValueError(
            f"Targets of {len(targets)} images{'' if valid is None else f' and valid of {len(valid)}'} were given for "
            f"predictions of {batch_size}; give one per image."
        )
    for image, target in enumerate(targets):
        labels, masks = target["labels"], target["masks"]
        if labels.ndim != 1 or masks.ndim not in _NUM_AXES or len(labels) != len(masks):
            raise ValueError(
                f"Image {image} has labels of shape {tuple(labels.shape)} and masks of shape {tuple(masks.shape)}; "
                f"give (T,) and (T, H, W), or for a volume (T, D, H, W)."
            )
        if valid is not None and masks.shape[1:] != valid.shape[1:]:
            raise ValueError(
                f"The masks of image {image} are {tuple(masks.shape[1:])} and valid is {tuple(valid.shape[1:])}; "
                f"give both the same size."
            )


def check_generators(generators: Sequence[torch.Generator] | None, batch_size: int, device: torch.device) -> None:
    """Rejects random generators unless there is one per image on the device of the predictions.

    Raises:
        ValueError: If the number differs, or one is on another type of device.
    """
    if generators is None:
        return
    if len(generators) != batch_size:
        raise ValueError(f"{len(generators)} generators were given for {batch_size} images; give one per image.")
    for image, generator in enumerate(generators):
        if generator.device.type != device.type:
            raise ValueError(
                f"The generator of image {image} is on {generator.device.type} and the predictions are on "
                f"{device.type}; make it with torch.Generator({device.type!r})."
            )
