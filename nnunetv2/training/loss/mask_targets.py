"""From nnU-Net's label maps to the sets of masks that Mask2Former is trained with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_targets(
    segmentation: Tensor,
    num_classes: int,
    *,
    regions: bool,
    ignore_label: int | None,
    size: Sequence[int] | None = None,
) -> tuple[list[dict[str, Tensor]], Tensor | None]:
    """One mask per class that occurs in an image; background is a class for labels, and none for regions.

    Args:
        segmentation: labels (B, 1, H, W), values 0 to K-1, `ignore_label` and nothing else; or regions (B, K, H, W) of
            0 and 1, with a further channel for ignored pixels if there is an ignore label.
        num_classes: K.
        regions: whether `segmentation` holds regions.
        ignore_label: its value; None: the dataset has none.
        size: (H', W') of the padded image that the masks are predicted for; None: (H, W).

    Returns:
        Per image `labels` (T,) int64 and `masks` (T, H', W') bool. And which pixels count, (B, H', W') bool, or None if
        all do. Ignored and padded pixels belong to no mask and do not count.
    """
    if regions:
        masks = segmentation[:, :num_classes].bool()
        valid = ~segmentation[:, num_classes].bool() if ignore_label is not None else None
    else:
        classes = torch.arange(num_classes, device=segmentation.device)[:, None, None]
        masks = segmentation == classes  # (B, K, H, W)
        valid = segmentation[:, 0] != ignore_label if ignore_label is not None else None
    if valid is not None:
        masks = masks & valid[:, None]
    height, width = masks.shape[-2:]
    if size is not None and tuple(size) != (height, width):
        padding = (0, size[1] - width, 0, size[0] - height)
        everywhere = torch.ones_like(masks[:, 0]) if valid is None else valid
        masks, valid = F.pad(masks, padding), F.pad(everywhere, padding)
    occurs = masks.flatten(2).any(dim=2).tolist()  # the one wait for the device
    targets = []
    for image, present in zip(masks, occurs, strict=True):
        labels = torch.tensor([c for c, there in enumerate(present) if there], dtype=torch.long, device=masks.device)
        targets.append({"labels": labels, "masks": image[labels]})
    return targets, valid
