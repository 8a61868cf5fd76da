"""Random brightness, contrast, saturation and hue, as introduced by SSD and common in semantic segmentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

BRIGHTNESS_DELTA = 32.0  # of 255
CONTRAST_RANGE = (0.5, 1.5)
SATURATION_RANGE = (0.5, 1.5)
HUE_RANGE = (-0.5, 0.5)  # of the colour circle


def distort_colours(image: Tensor, generator: torch.Generator) -> Tensor:
    """Distorts brightness, then saturation and hue, each with probability 1/2; likewise contrast, before or after them.

    Args:
        image: (3, H, W) uint8, RGB.
        generator: Source of all randomness.

    Returns:
        (3, H, W) uint8.

    Source: Liu et al. 2016, "SSD: Single Shot MultiBox Detector", section 2.2; the numbers are those of Meta's
    evaluation of DINOv3.
    """
    if _coin(generator):
        image = _add(image, _uniform(-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA, generator))
    is_contrast_first = _coin(generator)
    if is_contrast_first:
        image = _random_contrast(image, generator)
    if _coin(generator):
        image = F.adjust_saturation(image, _uniform(*SATURATION_RANGE, generator))
    if _coin(generator):
        image = F.adjust_hue(image, _uniform(*HUE_RANGE, generator))
    if not is_contrast_first:
        image = _random_contrast(image, generator)
    return image


def _random_contrast(image: Tensor, generator: torch.Generator) -> Tensor:
    """Scales about black, which torchvision calls brightness; torchvision's contrast scales about the mean."""
    return F.adjust_brightness(image, _uniform(*CONTRAST_RANGE, generator)) if _coin(generator) else image


def _add(image: Tensor, difference: float) -> Tensor:
    return (image.float() + difference).clamp_(0, 255).to(torch.uint8)


def _coin(generator: torch.Generator) -> bool:
    return torch.rand((), generator=generator).item() < 0.5


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()
