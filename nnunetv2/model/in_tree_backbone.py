"""The DINOv3 vision transformer of the `dinov3` package as a backbone, an alternative to timm's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dinov3.hub.architectures import SIZES, constructor_arguments
from dinov3.hub.backbones import build_vision_transformer
from dinov3.layers.rope_position_encoding import make_rotation
from dinov3.models.vision_transformer import DinoVisionTransformer
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbone_families import BackboneSize

_THEIR_NAMES = {"init_values": "layerscale_init"}  # timm's name of an option -> ours


class InTreeBackbone(Backbone):
    """Wraps `DinoVisionTransformer`, which uses the tensor names of Meta's checkpoints."""

    def __init__(self, vit: DinoVisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.embed_dim = vit.embed_dim
        self.patch_size = vit.patch_size
        self.num_blocks = vit.n_blocks
        self.in_channels = vit.in_chans
        self.num_heads = vit.num_heads
        self.num_prefix_tokens = 1 + vit.n_storage_tokens

    @classmethod
    def create(cls, row: BackboneSize, in_channels: int) -> InTreeBackbone:
        return cls.of_size(row.in_tree_name, in_channels, row.options)

    @classmethod
    def of_size(cls, name: str, in_channels: int, options: Mapping[str, Any]) -> InTreeBackbone:
        """Builds a released size with random weights.

        Args:
            name: key of `dinov3.hub.architectures.SIZES`.
            in_channels: C.
            options: overrides of the released size, by timm's names.
        """
        changes = {_THEIR_NAMES.get(option, option): value for option, value in options.items()}
        # Meta's pretraining rescales positions at random. timm's model, which must be interchangeable with this
        # one, does not, and a patch of a medical image has a known scale.
        arguments = constructor_arguments(SIZES[name]) | {"pos_embed_rope_rescale_coords": None} | changes
        return cls(build_vision_transformer(arguments | {"in_chans": in_channels}, None))

    def read_blocks(self, x: Tensor, blocks: Sequence[int], *, norm: bool) -> list[tuple[Tensor, Tensor]]:
        options = {"return_class_token": True, "return_extra_tokens": True, "norm": norm}
        layers = self.vit.get_intermediate_layers(x, n=blocks, **options)
        return [(patches, torch.cat((token[:, None], registers), dim=1)) for patches, token, registers in layers]

    def rotation(self, height: int, width: int) -> Tensor:
        return torch.cat(self.vit.rope_embed(H=height, W=width), dim=-1)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        tokens, (height, width) = self.vit.prepare_tokens_with_masks(x)
        return tokens, self.rotation(height, width)

    def run_block(
        self, block: int, tokens: Tensor, rotation: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        positions = None if rotation is None else make_rotation(*rotation.chunk(2, dim=-1), self.num_prefix_tokens)
        return self.vit.blocks[block](tokens, positions, attention_mask)

    def final_norm(self, tokens: Tensor) -> Tensor:
        return self.vit.norm(tokens)
