"""Resizing, cropping and padding of an image together with its label map."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence

import torch
import torch.nn.functional as nn_functional
from torch import Tensor

from dinov3.eval.segmentation.data.labels import IGNORE_INDEX

ImageSize = int | Sequence[int] | None
"""Length of the short side; or (height, width), regardless of the aspect ratio; or None: the size in the file."""

_FLOATS = (torch.float32, torch.float64)

MAX_CLASS_SHARE = 0.75  # of the labelled pixels of a crop
CROP_TRIES = 11


def scaled_size(
    size: Sequence[int], img_size: ImageSize, ratio: float, multiple_if_reduced: int = 1
) -> tuple[int, int]:
    """Computes the (height, width) to which an image is resized.

    Args:
        size: (height, width) of the image.
        img_size: requested size, before `ratio`.
        ratio: scale factor; the sides of `img_size` times `ratio` are rounded down, and the long side preserves the
            aspect ratio.
        multiple_if_reduced: for a `ratio` below 1, these sides are then rounded up to a multiple of this.
    """

    def scaled(side: int) -> int:
        length = max(int(side * ratio), 1)
        return math.ceil(length / multiple_if_reduced) * multiple_if_reduced if ratio < 1 else length

    height, width = size
    if isinstance(img_size, Sequence):
        return scaled(img_size[0]), scaled(img_size[1])
    short = scaled(min(size) if img_size is None else img_size)
    long = max(int(short * max(size) / min(size) + 0.5), 1)
    return (long, short) if height > width else (short, long)


def resize_image(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes (C, H, W) uint8 or float with antialiased bilinear interpolation, as in Pillow.

    The result is that of `torchvision.transforms.v2.functional.resize`, whose import takes seconds.
    """
    if image.shape[-2:] == tuple(size):
        return image
    is_native = image.dtype in _FLOATS or (image.dtype == torch.uint8 and _resizes_bytes(image.device))
    values = (image if is_native else image.float())[None]
    resized = nn_functional.interpolate(values, list(size), mode="bilinear", align_corners=False, antialias=True)[0]
    if not is_native and not image.is_floating_point():
        resized = resized.round_()
    return resized.to(image.dtype)


def _resizes_bytes(device: torch.device) -> bool:
    """True where torchvision has torch resize uint8 itself, which rounds differently from float32."""
    return device.type == "cpu" and (
        torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
    )


def resize_label(label: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes (H, W) integers by nearest pixel centre, so that they stay aligned with a resized image."""
    if label.shape == tuple(size):
        return label
    values = label if label.dtype in (*_FLOATS, torch.uint8) else label.float()  # torch resizes no other integers
    return nn_functional.interpolate(values[None, None], list(size), mode="nearest-exact")[0, 0].to(label.dtype)


def draw_crop(label: Tensor, crop_size: Sequence[int], generator: torch.Generator) -> tuple[slice, slice]:
    """Draws rows and columns of a crop until no class fills more than 75 % of its labelled pixels.

    Args:
        label: (H, W) int64, ignored pixels 255.
        crop_size: (height, width); a side longer than the label's covers all of it.
        generator: Source of all randomness.

    Returns:
        The first such crop, or the last of eleven.

    Source: `cat_max_ratio` of MMSegmentation's random crop, which Meta's recipe follows.
    """
    for _ in range(CROP_TRIES):
        rows, columns = (
            _draw_part(length, wanted, generator) for length, wanted in zip(label.shape, crop_size, strict=True)
        )
        labels = label[rows, columns]
        counts = torch.bincount(labels[labels != IGNORE_INDEX], minlength=1)
        if counts.max() < MAX_CLASS_SHARE * counts.sum():
            break
    return rows, columns


def pad_to(values: Tensor, size: Sequence[int], value: float) -> Tensor:
    """Pads (..., H, W) at the bottom and right up to (height, width)."""
    height, width = values.shape[-2:]
    return nn_functional.pad(values, (0, size[1] - width, 0, size[0] - height), value=value)


def _draw_part(length: int, wanted: int, generator: torch.Generator) -> slice:
    start = torch.randint(max(length - wanted, 0) + 1, (), generator=generator).item()
    return slice(start, start + min(wanted, length))
