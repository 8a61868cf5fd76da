"""Sine position encoding of two-dimensional maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dinov3.eval.segmentation.models.utils.size_constants import constant_of_size

TEMPERATURE = 10000.0  # ratio of the longest to the shortest wavelength
EPSILON = 1e-6  # as in the original's normalisation, which released weights depend on


def sine_position_encoding(height: int, width: int, num_channels: int, device: torch.device) -> Tensor:
    """Encodes the row in the first half of the channels and the column in the second.

    Rows and columns count from 1 and are scaled to (0, 2 pi]. Within a half, sines (even channels) and cosines (odd
    channels) alternate, with increasing wavelength.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        num_channels: Channels of the encoding, a multiple of 4.
        device: Device of the result.

    Returns:
        (1, num_channels, height, width) in float32.

    Raises:
        ValueError: If the number of channels is not a multiple of 4.

    Source: Carion et al. 2020, "End-to-End Object Detection with Transformers", appendix A.4, arXiv:2005.12872.
    """
    if num_channels % 4:
        raise ValueError(f"A position encoding of {num_channels} channels was asked for; give a multiple of 4.")
    rows = _axis_encoding(height, num_channels // 2, device)
    columns = _axis_encoding(width, num_channels // 2, device)
    encoding = torch.cat(
        (rows[:, None].expand(height, width, -1), columns[None].expand(height, width, -1)), dim=-1
    )  # (H, W, C)
    return encoding.permute(2, 0, 1)[None].contiguous()


# Whole maps are not cached: with 2048 channels, those of one image can exceed 100 MB.
@constant_of_size
def _axis_encoding(length: int, num_channels: int, device: torch.device) -> Tensor:
    position = torch.arange(1, length + 1, device=device, dtype=torch.float32) * (2 * math.pi / (length + EPSILON))
    exponent = torch.arange(0, num_channels, 2, device=device, dtype=torch.float32) / num_channels
    angle = position[:, None] / TEMPERATURE**exponent
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)  # (length, num_channels)
