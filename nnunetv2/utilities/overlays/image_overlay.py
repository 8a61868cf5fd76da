"""Overlay a grey image with the colours of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2.errors import UsageError

# Black adds nothing and comes first: in most slices the lowest label is the background.
# Source: Sasha Trubetskoy, "List of 20 Simple, Distinct Colors", in the order of upstream.
color_cycle = (
    "000000", "4363d8", "f58231", "3cb44b", "e6194B", "911eb4", "ffe119", "bfef45",
    "42d4f4", "f032e6", "000075", "9A6324", "808000", "800000", "469990",
)  # fmt: skip


def hex_to_rgb(hex: str) -> tuple[int, int, int]:
    """Parse a colour such as `4363d8` as red, green and blue, 0 to 255."""
    try:
        red, green, blue = bytes.fromhex(hex)
    except ValueError as err:
        raise UsageError(f"{hex!r} is not a colour; it must be six hexadecimal digits, like 4363d8") from err
    return red, green, blue


def generate_overlay(
    input_image: np.ndarray,
    segmentation: np.ndarray,
    mapping: Mapping[int, int] | None = None,
    color_cycle: Sequence[str] = color_cycle,
    overlay_intensity: float = 0.6,
) -> np.ndarray:
    """Add the colour of each pixel's label to the image.

    Args:
        input_image: (H, W), (H, W, 1) or (H, W, 3), any range; scaled from its minimum and maximum.
        segmentation: (H, W) labels.
        mapping: index of the colour of each label. By default the labels of this segmentation are assigned in
            ascending order, starting with the first colour.
        color_cycle: colours such as `4363d8`. Indices beyond the last wrap to the second, since the first is reserved
            for the background.
        overlay_intensity: weight of the colour.

    Returns:
        (H, W, 3) uint8; the maximum is 255.
    """
    image = _stretched(_with_three_channels(input_image, segmentation.shape))
    if mapping is None:
        mapping = {label: index for index, label in enumerate(np.unique(segmentation).tolist())}
    for label, index in mapping.items():
        image[segmentation == label] += overlay_intensity * np.array(hex_to_rgb(_cycled(color_cycle, index)))
    return _up_to_255(image).astype(np.uint8)


def _with_three_channels(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Expand to (H, W, 3), floating point; float32 images stay float32."""
    channels = image[..., None] if image.ndim == 2 else image
    if channels.ndim != 3 or channels.shape[2] not in (1, 3) or channels.shape[:2] != shape:
        raise UsageError(
            f"An overlay of an image of shape {list(image.shape)} and a segmentation of shape {list(shape)} cannot be "
            f"drawn; the image must be two-dimensional, or have one or three colours in a last axis, and fit the labels"
        )
    channels = channels if np.issubdtype(channels.dtype, np.floating) else channels.astype(np.float64)
    return np.broadcast_to(channels, (*shape, 3))


def _stretched(image: np.ndarray) -> np.ndarray:
    return _up_to_255(image - image.min())


def _up_to_255(image: np.ndarray) -> np.ndarray:
    """Scale the maximum to 255; images without positive values stay unchanged."""
    highest = image.max()
    return image / highest * 255 if highest > 0 else image


def _cycled(colors: Sequence[str], index: int) -> str:
    if index < len(colors) or len(colors) == 1:
        return colors[min(index, len(colors) - 1)]
    return colors[1 + (index - 1) % (len(colors) - 1)]
