"""A vision transformer with a convolutional head: maps of chosen blocks in, one logit per class and pixel out."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from nnunetv2.model.backbone import Backbone
from nnunetv2.model.chosen_blocks import four_blocks
from nnunetv2.model.vit_network import ViTNetwork, padded_size


class DenseViTNetwork(ViTNetwork):
    """The forward pass that networks with a dense head share; subclasses define `decode`."""

    def read_blocks(self, vit: Backbone, layers: str | Sequence[int]) -> None:
        """Takes over the backbone, of which four blocks are read.

        Args:
            vit: becomes part of this network.
            layers: the name of a choice, or 0-based block numbers, see `four_blocks`.

        Raises:
            ValueError: other than four different existing blocks in ascending order.
        """
        self.out_indices = four_blocks(vit.num_blocks, layers)
        self.encoder = vit

    @property
    def size_multiple(self) -> int:
        return self.encoder.patch_size

    @property
    def backbone(self) -> Backbone:
        return self.encoder

    @abc.abstractmethod
    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps (B, D, h, w) of the backbone -> logits (B, K, *, *) of any resolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Segments images of any size: (B, C, H, W) -> logits (B, K, H, W)."""
        maps = self.encoder.get_intermediate_layers(self.adapted(x), n=self.out_indices, reshape=True)
        size = padded_size(x.shape[-2:], self.image_multiple)
        logits = F.interpolate(self.decode(maps), size=size, mode="bilinear", align_corners=False)
        return logits[..., : x.shape[-2], : x.shape[-1]]
