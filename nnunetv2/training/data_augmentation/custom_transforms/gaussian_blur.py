"""Gaussian blur that also works on patches shorter than its kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.noise import gaussian_blur
from torch.nn.functional import pad

_TRUNCATE = 6  # length of the kernel in sigmas, as in batchgeneratorsv2


class GaussianBlurTransform(gaussian_blur.GaussianBlurTransform):
    """As its base class, which raises for an axis of up to half the kernel, such as one of three slices.

    It reflects the image at its borders, which takes more voxels than such an axis has; here its outermost voxels are
    repeated first. The name is that of the base class, because descriptions of trainings hold it.
    """

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        sizes = img.shape[1:]
        sigma = max(np.ravel(params["sigmas"]), default=0)
        margins = [max(0, round(sigma * _TRUNCATE) // 2 + 1 - size) for size in sizes]
        if not any(margins):
            return super()._apply_to_image(img, **params)
        around = [margin for margin in reversed(margins) for _ in ("before", "after")]  # the last axis comes first
        blurred = super()._apply_to_image(pad(img, around, mode="replicate"), **params)
        inside = [slice(margin, margin + size) for margin, size in zip(margins, sizes, strict=True)]
        return blurred[(slice(None), *inside)].contiguous()
