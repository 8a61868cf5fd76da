"""Mask2Former on a vision transformer, as a network for nnU-Net: dense class logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dinov3.eval.segmentation.models import build_segmentation_decoder
from dinov3.eval.segmentation.models.backbone.dinov3_adapter import SIZE_MULTIPLE
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.chosen_blocks import four_blocks
from nnunetv2.model.query_network import QueryNetwork
from nnunetv2.model.resized_backbone import ResizedBackbone, with_patches_of_16


class M2FSegmentationModel(QueryNetwork):
    """ViT backbone, adapter pyramid, pixel decoder and mask transformer.

    Args:
        backbone_out_layers: name of a choice of four blocks, or their 0-based numbers.
        hidden_dim: channels of the head.
        num_heads: attention heads of the head.
        dim_feedforward: hidden width of the head's feed-forward networks.
        num_queries: masks proposed per image.
        num_encoder_layers: layers of the pixel decoder.
        num_decoder_layers: layers of the mask transformer.
        drop_path_rate: probability in [0, 1) that a sample skips a feed-forward network of the adapter in training.
        gradient_checkpointing: recompute the adapter in the backward pass, which saves memory and costs time.

    The other arguments are those of `ViTNetwork`.
    """

    size_multiple = SIZE_MULTIPLE

    @property
    def backbone(self) -> Backbone:
        backbone = self.decoder.segmentation_model[0].backbone
        return backbone.backbone if isinstance(backbone, ResizedBackbone) else backbone

    def build_head(
        self,
        vit: Backbone,
        num_classes: int,
        *,
        backbone_out_layers: str | Sequence[int] = "FOUR_EVEN_INTERVALS",
        hidden_dim: int = 256,
        num_heads: int = 8,
        dim_feedforward: int = 1024,
        num_queries: int = 100,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 9,
        drop_path_rate: float = 0.3,
        gradient_checkpointing: bool = True,
    ) -> None:
        if num_queries < num_classes:
            raise ValueError(f"model.num_queries={num_queries} is below the number of classes, {num_classes}")
        self.decoder = build_segmentation_decoder(
            with_patches_of_16(vit),
            four_blocks(vit.num_blocks, backbone_out_layers),
            hidden_dim=hidden_dim,
            num_classes=num_classes,
            freeze_backbone=False,
            in_channels=self.input.out_channels,
            num_heads=num_heads,
            dim_feedforward=dim_feedforward,
            num_queries=num_queries,
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            drop_path_rate=drop_path_rate,
            with_cp=gradient_checkpointing,
        )

    def queries(self, image: Tensor) -> dict[str, Any]:
        return self.decoder(image)
