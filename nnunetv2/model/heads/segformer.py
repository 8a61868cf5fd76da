"""SegFormer's decode head on a vision transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.model.choices import STRATEGIES
from nnunetv2.model.feature_pyramid import feature_pyramid
from nnunetv2.model.head import BackboneSpec, DenseHead, Features, register_head
from nnunetv2.model.head_config import DenseHeadConfig


@register_head("segformer")
class SegFormer(DenseHead):
    """A pyramid made of four maps of one scale, and transformers' `SegformerDecodeHead`.

    Source: Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
    section 3.2, arXiv:2105.15203.
    """

    @dataclass
    class Config(DenseHeadConfig):
        """Backbone, pyramid and decode head."""

        network_class: ClassVar[str] = "nnunetv2.model.model_segformer.SegFormerSegmentationModel"
        not_in_network: ClassVar[tuple[str, ...]] = ("num_encoder_blocks",)

        feature_strategy: str = "pyramid"
        """How four maps of one scale become the head's input: layers (as they are), pyramid (each depth learns a scale
        of its own, 1/4 to 1/32) or progressive (scales from coarse to fine, each with one more depth)."""
        decoder_hidden_size: int = 256
        """Channels of the head."""
        num_encoder_blocks: int = 4
        """Maps that the head takes: 4."""
        dropout: float = 0.1
        """Probability of dropping a channel before the classifier while training, in [0, 1)."""

        def __post_init__(self) -> None:
            require_choice("model.feature_strategy", self.feature_strategy, STRATEGIES)
            require_range("model.decoder_hidden_size", self.decoder_hidden_size, 1)
            require_range("model.num_encoder_blocks", self.num_encoder_blocks, 4, 4)
            require_range("model.dropout", self.dropout, 0, 0.99)

    classifier: ClassVar[tuple[str, ...]] = ("decode_head.classifier",)

    def __init__(self, config: Config, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        from transformers import SegformerConfig
        from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

        self.pyramid = feature_pyramid(config.feature_strategy, spec.embed_dim)
        options = SegformerConfig(
            num_encoder_blocks=config.num_blocks,
            hidden_sizes=[spec.embed_dim] * config.num_blocks,
            decoder_hidden_size=config.decoder_hidden_size,
            classifier_dropout_prob=config.dropout,
            num_labels=num_classes,
        )
        self.decode_head = SegformerDecodeHead(options)

    def forward(self, features: Features) -> Tensor:
        return self.decode_head(self.pyramid(features.maps))
