"""Wraps a vision transformer of any patch size so that it behaves as one with patches of 16 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2.model.backbone import Backbone

PATCH_SIZE = 16


class ResizedBackbone(nn.Module):
    """Resizes images by p/16 for a backbone with patches of p pixels, so that its maps are H/16 x W/16.

    Freezing, train and eval mode are those of the wrapped backbone. DINOv2 then processes as many tokens as DINOv3,
    instead of a third more.

    Args:
        backbone: becomes part of this module.

    Attributes:
        backbone: as given.
        embed_dim: width D of the tokens.
        patch_size: 16.
        num_blocks: number of transformer blocks; `n_blocks` is the same.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.embed_dim: int = backbone.embed_dim
        self.patch_size = PATCH_SIZE
        self.num_blocks: int = backbone.num_blocks
        self.n_blocks = self.num_blocks  # Meta's name
        self.train(backbone.training)

    def get_intermediate_layers(self, x: Tensor, n: int | Sequence[int] = 1, **options: Any) -> tuple[Any, ...]:
        """Returns the outputs of selected blocks, as the backbone's method of the same name.

        Args:
            x: (B, C, H, W); H and W are multiples of 16.
            n: the last n blocks, or 0-based block numbers.
            options: see `Backbone.get_intermediate_layers`.

        Raises:
            ValueError: H or W is not a multiple of 16, or a block does not exist.
        """
        if any(side % PATCH_SIZE for side in x.shape[-2:]):
            raise ValueError(f"the image has {tuple(x.shape[-2:])} pixels; height and width must be multiples of 16")
        size = [side // PATCH_SIZE * self.backbone.patch_size for side in x.shape[-2:]]
        image = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.backbone.get_intermediate_layers(image, n=n, **options)


def with_patches_of_16(backbone: Backbone) -> Backbone | ResizedBackbone:
    """Returns the backbone itself if its patches have 16 pixels, which keeps its weight names; else wraps it."""
    return backbone if backbone.patch_size == PATCH_SIZE else ResizedBackbone(backbone)


def without_resizing(backbone: nn.Module) -> Backbone:
    """The backbone that `with_patches_of_16` was given."""
    return backbone.backbone if isinstance(backbone, ResizedBackbone) else backbone
