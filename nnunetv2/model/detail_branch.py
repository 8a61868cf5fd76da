"""Detail branch: convolutions on the image itself, for structures thinner than the head's resolution.

Shapes: B batch, C channels of the adapted image, K classes or regions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FULL, _HALF = 32, 96  # channels at full and at half resolution
_GROUPS = 8


class DetailBranch(nn.Module):
    """Logits to add to those of any head, at the resolution of the image.

    Three convolutions, one at full and two at half resolution, see the image, as in the spatial prior of ViT-Adapter,
    which ends where this begins: at a quarter. What they see is combined with what the head has recognised, because
    a few pixels around a vessel tell where it is but not whether it is an artery. The last layer starts at 0, so that
    the branch does not change the network at first.

    Args:
        in_channels: C.
        num_classes: K.

    Source: Chen et al. 2023, "Vision Transformer Adapter for Dense Predictions", section 3.3, arXiv:2205.08534, for
    the idea of a convolutional prior.
    """

    classifier = ("guide", "last")
    """Submodules whose size depends on K."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fine = _convolution(in_channels, _FULL, stride=1)
        self.coarse = _convolution(_FULL, _HALF, stride=2)
        self.guide = nn.Conv2d(num_classes, _HALF, kernel_size=1)
        self.mix = _convolution(_HALF, _HALF, stride=1)
        self.last = nn.Conv2d(_FULL + _HALF, num_classes, kernel_size=3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, image: Tensor, logits: Tensor, *, regions: bool) -> Tensor:
        """Computes the correction of the head's logits.

        Args:
            image: (B, C, H, W).
            logits: (B, K, h, w) of the head, of any resolution; no gradient flows through them.
            regions: independent regions instead of exclusive labels.

        Returns:
            (B, K, H, W).
        """
        logits = logits.detach()
        recognised = torch.sigmoid(logits) if regions else torch.softmax(logits, dim=1)
        full = self.fine(image)
        half = self.coarse(full)
        recognised = F.interpolate(recognised, size=half.shape[-2:], mode="bilinear", align_corners=False)
        half = self.mix(half + self.guide(recognised.to(image.dtype)))
        enlarged = F.interpolate(half, size=full.shape[-2:], mode="bilinear", align_corners=False)
        return self.last(torch.cat((full, enlarged), dim=1))


def _convolution(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(_GROUPS, out_channels),
        nn.GELU(),
    )
