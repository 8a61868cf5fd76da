"""A decoder that doubles the resolution step by step and sees the backbone's maps at each step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_STAGES = 4
_SMALLEST_WIDTH = 32


class UpsampleStage(nn.Module):
    """Enlarges twofold, adds a map of the backbone as a skip connection and mixes both.

    Args:
        in_channels: channels of the input.
        skip_channels: channels of the backbone's map.
        out_channels: channels of the result.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, out_channels, kernel_size=1)
        self.mix = nn.Sequential(
            nn.Conv2d(in_channels + out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(8, out_channels),
            nn.GELU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(8, out_channels),
            nn.GELU(),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, in, h, w) and a map (B, skip, *, *) of any size -> (B, out, 2h, 2w)."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        skip = F.interpolate(self.skip(skip), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.mix(torch.cat((x, skip), dim=1))


class ProgressiveUpsampleDecoder(nn.Module):
    """Four stages, sixteen times the resolution; the deepest map of the backbone enters first.

    Args:
        in_channels: channels of the input.
        skip_channels: channels of the backbone's maps.
        num_classes: K.
    """

    def __init__(self, in_channels: int, skip_channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [max(in_channels // 2 ** (stage + 1), _SMALLEST_WIDTH) for stage in range(NUM_STAGES)]
        self.stages = nn.ModuleList(
            UpsampleStage(before, skip_channels, width)
            for before, width in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.classifier = nn.Conv2d(widths[-1], num_classes, kernel_size=1)

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """(B, in, h, w) and four maps, shallowest first -> logits (B, K, 16h, 16w)."""
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(x, skip)
        return self.classifier(x)
