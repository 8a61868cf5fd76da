"""From nnU-Net's label maps to the sets of masks that Mask2Former is trained with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov3.utils.host_copies import to_device


def mask_targets(
    segmentation: Tensor,
    num_classes: int,
    *,
    regions: bool,
    ignore_label: int | None,
    size: Sequence[int] | None = None,
    on_host: Tensor | None = None,
) -> tuple[list[dict[str, Tensor]], Tensor | None]:
    """One mask per class that occurs in an image or volume; background is a class for labels, and none for regions.

    Args:
        segmentation: labels (B, 1, H, W), values 0 to K-1, `ignore_label` and nothing else; or regions (B, K, H, W) of
            0 and 1, with a further channel for ignored pixels if there is an ignore label. Volumes have an axis of D
            slices before H, here and in the result.
        num_classes: K.
        regions: whether `segmentation` holds regions.
        ignore_label: its value; None: the dataset has none.
        size: (H', W') of the padded image that the masks are predicted for; None: (H, W).
        on_host: `segmentation` on the CPU. Without it, the host waits for the device to know which classes occur.

    Returns:
        Per image `labels` (T,) int64 and `masks` (T, H', W') bool. And which pixels count, (B, H', W') bool, or None if
        all do. Ignored and padded pixels belong to no mask and do not count.
    """
    masks, valid = _masks(segmentation, num_classes, regions=regions, ignore_label=ignore_label)
    known = segmentation if on_host is None else on_host
    occurring = occurring_classes(known, num_classes, regions=regions, ignore_label=ignore_label)
    height, width = masks.shape[-2:]
    if size is not None and tuple(size) != (height, width):
        padding = (0, size[1] - width, 0, size[0] - height)
        everywhere = torch.ones_like(masks[:, 0]) if valid is None else valid
        masks, valid = F.pad(masks, padding), F.pad(everywhere, padding)
    pairs = [(image, label) for image, labels in enumerate(occurring) for label in labels]
    images, labels = to_device(torch.tensor(pairs, dtype=torch.long).view(-1, 2).T.contiguous(), masks.device)
    counts = [len(of_image) for of_image in occurring]
    parts = zip(labels.split(counts), masks[images, labels].split(counts), strict=True)
    return [{"labels": of_image, "masks": chosen} for of_image, chosen in parts], valid


def occurring_classes(
    segmentation: Tensor, num_classes: int, *, regions: bool, ignore_label: int | None
) -> list[list[int]]:
    """The classes that occur in each image, ascending; arguments as in `mask_targets`."""
    if regions:
        masks, _ = _masks(segmentation, num_classes, regions=True, ignore_label=ignore_label)
        occurs = masks.flatten(2).any(dim=2)
    else:
        # One pass over the pixels, however many classes there are. The first and last bin take all other values.
        bins = segmentation[:, 0].flatten(1).long().clamp(-1, num_classes) + 1
        counts = torch.stack([image.bincount(minlength=num_classes + 2) for image in bins])
        occurs = counts[:, 1:-1] > 0
        if ignore_label is not None and 0 <= ignore_label < num_classes:
            occurs[:, ignore_label] = False
    return [[label for label, there in enumerate(image) if there] for image in occurs.tolist()]


def _masks(
    segmentation: Tensor, num_classes: int, *, regions: bool, ignore_label: int | None
) -> tuple[Tensor, Tensor | None]:
    """Masks (B, K, H, W) of all classes, and which pixels (B, H, W) are not ignored."""
    if regions:
        masks = segmentation[:, :num_classes].bool()
        valid = ~segmentation[:, num_classes].bool() if ignore_label is not None else None
    else:
        classes = torch.arange(num_classes, device=segmentation.device).view(-1, *[1] * (segmentation.ndim - 2))
        masks = segmentation == classes
        valid = segmentation[:, 0] != ignore_label if ignore_label is not None else None
    return masks if valid is None else masks & valid[:, None], valid
