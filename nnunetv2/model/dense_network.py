"""A vision transformer with a convolutional head: maps of chosen blocks in, one logit per class and pixel out."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from dinov3.eval.segmentation.models import backbone_out_indices
from nnunetv2.model.backbones import TimmBackbone
from nnunetv2.model.feature_pyramid import NUM_MAPS
from nnunetv2.model.vit_network import ViTNetwork, pad_to_multiple


class DenseViTNetwork(ViTNetwork):
    """The forward pass that networks with a dense head share; subclasses define `decode`."""

    def read_blocks(self, vit: TimmBackbone, layers: str | Sequence[int]) -> None:
        """Takes over the backbone, of which four blocks are read.

        Args:
            vit: becomes part of this network.
            layers: the name of a choice, or 0-based block numbers.

        Raises:
            ValueError: other than four blocks, or blocks that do not exist.
        """
        self.out_indices = backbone_out_indices(vit.num_blocks, layers)
        if len(self.out_indices) != NUM_MAPS:
            raise ValueError(f"model.backbone_out_layers names {len(self.out_indices)} blocks; name {NUM_MAPS}")
        self.encoder = vit

    @property
    def size_multiple(self) -> int:
        return self.encoder.patch_size

    @property
    def backbone(self) -> TimmBackbone:
        return self.encoder

    @abc.abstractmethod
    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps (B, D, h, w) of the backbone -> logits (B, K, *, *) of any resolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Segments images of any size: (B, C, H, W) -> logits (B, K, H, W)."""
        padded = pad_to_multiple(self.input(x), self.size_multiple)
        maps = self.encoder.get_intermediate_layers(padded, n=self.out_indices, reshape=True)
        logits = F.interpolate(self.decode(maps), size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., : x.shape[-2], : x.shape[-1]]
