"""Mask2Former on a vision transformer: DINOv3's adapter, pixel decoder and mask transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dinov3.eval.segmentation.models import build_segmentation_decoder
from dinov3.eval.segmentation.models.backbone.dinov3_adapter import SIZE_MULTIPLE
from dinov3.eval.segmentation.settings.head import DecoderConfig
from dinov3.utils.yaml_config import require_multiple, require_range
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head import BackboneSpec, Features, QueryHead, register_head
from nnunetv2.model.head_config import QueryHeadConfig
from nnunetv2.model.resized_backbone import with_patches_of_16, without_resizing


@register_head("m2f")
class Mask2Former(QueryHead):
    """Mask2Former: DINOv3's adapter around the backbone, a pixel decoder and a mask transformer with queries.

    Source: Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation", arXiv:2112.01527;
    Simeoni et al. 2025, "DINOv3", section 6.3.2, arXiv:2508.10104.
    """

    @dataclass
    class Config(QueryHeadConfig):
        """Backbone, pixel decoder and mask transformer."""

        network_class: ClassVar[str] = "nnunetv2.model.model_m2f.M2FSegmentationModel"
        training_only: ClassVar[tuple[str, ...]] = ("drop_path_rate", "gradient_checkpointing")

        hidden_dim: int = 256
        """Channels of the pixel decoder and the queries; a multiple of 32 and of num_heads."""
        num_heads: int = 8
        """Attention heads of the head."""
        dim_feedforward: int = 1024
        """Hidden width of the head's feed-forward networks."""
        num_encoder_layers: int = DecoderConfig.num_encoder_layers
        """Layers of the pixel decoder."""
        num_decoder_layers: int = DecoderConfig.num_decoder_layers
        """Layers of the mask transformer."""
        drop_path_rate: float = DecoderConfig.drop_path_rate
        """Probability that an image skips a feed-forward network of the adapter while training, in [0, 1)."""
        gradient_checkpointing: bool = DecoderConfig.gradient_checkpointing
        """Recompute the adapter in the backward pass: less memory, more time."""

        def __post_init__(self) -> None:
            for name in ("num_heads", "dim_feedforward", "num_queries", "num_encoder_layers", "num_decoder_layers"):
                require_range(f"model.{name}", getattr(self, name), 1)
            require_range("model.drop_path_rate", self.drop_path_rate, 0, 0.99)
            require_range("model.hidden_dim", self.hidden_dim, 1)
            unit = math.lcm(32, self.num_heads)
            require_multiple("model.hidden_dim", [self.hidden_dim], unit, "of 32 and of model.num_heads")

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return 4

    classifier: ClassVar[tuple[str, ...]] = ("decoder.segmentation_model.1.predictor.class_embed",)
    part_labels: ClassVar[dict[str, str]] = {
        "decoder.segmentation_model.0.backbone": "backbone",
        "decoder.segmentation_model.0": "adapter",
        "decoder.segmentation_model.1.pixel_decoder": "pixel decoder",
        "decoder.segmentation_model.1.predictor": "mask transformer",
    }
    owns_backbone = True
    size_multiple = SIZE_MULTIPLE

    def __init__(
        self, config: Config, spec: BackboneSpec, num_classes: int, backbone: Backbone, blocks: Sequence[int]
    ) -> None:
        super().__init__(config, spec, num_classes)
        self.decoder = build_segmentation_decoder(
            with_patches_of_16(backbone),
            blocks,
            hidden_dim=config.hidden_dim,
            num_classes=num_classes,
            freeze_backbone=False,
            in_channels=spec.in_channels,
            num_heads=config.num_heads,
            dim_feedforward=config.dim_feedforward,
            num_queries=config.num_queries,
            num_encoder_layers=config.num_encoder_layers,
            num_decoder_layers=config.num_decoder_layers,
            drop_path_rate=config.drop_path_rate,
            with_cp=config.gradient_checkpointing,
        )

    @property
    def backbone(self) -> Backbone:
        return without_resizing(self.decoder.segmentation_model[0].backbone)

    def forward(self, features: Features) -> dict[str, Any]:
        if features.depth is None:
            return self.decoder(features.image)
        adapter, head = self.decoder.segmentation_model
        maps = adapter(features.image)
        return head(dict(zip(maps, features.fused(list(maps.values())), strict=True)), features.depth)
