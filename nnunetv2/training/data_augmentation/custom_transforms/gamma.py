"""Gamma correction with fewer passes over the image than in batchgeneratorsv2."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity import gamma

_SMALLEST = 1e-7  # of ranges and standard deviations that are divided by, as in batchgeneratorsv2
_VALUES_AT_ONCE = 2**16


class GammaTransform(gamma.GammaTransform):
    """As its base class, of which it draws the same numbers; results differ by rounding only.

    The name is that of the base class, because descriptions of trainings hold it.
    """

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        channels = params["apply_to_channel"].tolist()
        if not channels or img.device.type != "cpu" or img.dtype != torch.float32:
            return super()._apply_to_image(img, **params)
        choices = (params[name].tolist() for name in ("gamma", "retain_stats", "invert_image"))
        for channel, exponent, retain_stats, invert in zip(channels, *choices, strict=True):
            _correct(img[channel], exponent, retain_stats=retain_stats, invert=invert)
        return img


def _correct(image: torch.Tensor, exponent: float, *, retain_stats: bool, invert: bool) -> None:
    """Replaces values by (x - min)^exponent, scaled to their range or to their mean and standard deviation.

    Args:
        image: any shape, float32, on the CPU; changed in place.
        exponent: above 0.
        retain_stats: restore mean and standard deviation.
        invert: apply it to the negative values.
    """
    if invert:
        image.neg_()
    # The rounding of a mean in float32 moves the whole image, so means are the base class's.
    mean = image.mean() if retain_stats else 0
    lowest, highest = (float(value) for value in torch.aminmax(image))
    extent = highest - lowest
    image.sub_(lowest)
    deviation = _norm(image - (mean - lowest)) if retain_stats else 0
    values = image.div_(max(extent, _SMALLEST)).numpy()
    np.power(values, np.float32(exponent), out=values)  # takes half the time of torch's
    image.mul_(extent).add_(lowest)
    if retain_stats:
        image.sub_(image.mean())
        smallest = _SMALLEST * math.sqrt(image.numel() - 1)
        image.mul_(deviation / max(_norm(image), smallest)).add_(mean)
    if invert:
        image.neg_()


def _norm(image: torch.Tensor) -> float:
    """Root of the sum of squares; in parts, as a sum of millions in float32 loses digits."""
    return math.sqrt(sum(float(torch.dot(part, part)) for part in image.reshape(-1).split(_VALUES_AT_ONCE)))
