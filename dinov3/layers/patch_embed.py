"""Patch embedding: converts images to tokens, one per square patch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Projects every patch of an image to a token.

    Args:
        patch_size: Side of the square patches in pixels; they do not overlap.
        in_chans: Channels of the images.
        embed_dim: Channels of the tokens.
        device: Device on which parameters are created.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", equation 1, arXiv:2010.11929.
    """

    def __init__(
        self,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.patch_size, self.in_chans, self.embed_dim = patch_size, in_chans, embed_dim
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size, device=device)

    def reset_parameters(self) -> None:
        """Re-initialises the projection, uniform within 1 / sqrt(values per patch)."""
        self.proj.reset_parameters()

    def forward(self, image: Tensor) -> Tensor:
        """Splits images into patches and projects them.

        Args:
            image: (B, in_chans, H, W); H and W are any multiples of the patch size.

        Returns:
            (B, H / patch_size, W / patch_size, embed_dim).

        Raises:
            ValueError: If the number of axes or channels is wrong, or a side is not a multiple of the patch size.
        """
        self._check(image)
        return self.proj(image).permute(0, 2, 3, 1)  # (B, D, h, w) -> (B, h, w, D)

    def _check(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != self.in_chans:
            raise ValueError(
                f"An image tensor of shape {tuple(image.shape)} was given; this model takes "
                f"(batch, {self.in_chans}, height, width)."
            )
        height, width = image.shape[-2:]
        if height % self.patch_size or width % self.patch_size or 0 in (height, width):
            fitting = [max(1, math.ceil(side / self.patch_size)) * self.patch_size for side in (height, width)]
            raise ValueError(
                f"An image of {height} x {width} pixels was given, which patches of {self.patch_size} x "
                f"{self.patch_size} do not tile; pad or resize it to {fitting[0]} x {fitting[1]}."
            )
