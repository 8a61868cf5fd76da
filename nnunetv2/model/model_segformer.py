"""SegFormer's decode head on a vision transformer, as a network for nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nnunetv2.model.backbone import Backbone
from nnunetv2.model.dense_network import DenseViTNetwork
from nnunetv2.model.feature_pyramid import NUM_MAPS, feature_pyramid


class SegFormerSegmentationModel(DenseViTNetwork):
    """ViT backbone, a pyramid made of its maps, and transformers' `SegformerDecodeHead`.

    Args:
        backbone_out_layers: name of a choice of four blocks, or their 0-based numbers.
        feature_strategy: how four maps of one scale become the head's input, see `nnunetv2.model.feature_pyramid`.
        decoder_hidden_size: channels of the head.
        dropout: probability in [0, 1) of dropping a channel before the classifier in training.

    The other arguments are those of `ViTNetwork`.

    Source: Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
    section 3.2, arXiv:2105.15203.
    """

    def build_head(
        self,
        vit: Backbone,
        num_classes: int,
        *,
        backbone_out_layers: str | Sequence[int] = "FOUR_EVEN_INTERVALS",
        feature_strategy: str = "pyramid",
        decoder_hidden_size: int = 256,
        dropout: float = 0.1,
    ) -> None:
        from transformers import SegformerConfig
        from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

        self.read_blocks(vit, backbone_out_layers)
        self.pyramid = feature_pyramid(feature_strategy, vit.embed_dim)
        config = SegformerConfig(
            num_encoder_blocks=NUM_MAPS,
            hidden_sizes=[vit.embed_dim] * NUM_MAPS,
            decoder_hidden_size=decoder_hidden_size,
            classifier_dropout_prob=dropout,
            num_labels=num_classes,
        )
        self.decode_head = SegformerDecodeHead(config)

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        return self.decode_head(self.pyramid(maps))


def create_segformer_model(
    num_classes: int,
    input_channels: int = 3,
    backbone_name: str = "dinov3",
    backbone_size: str = "large",
    *,
    freeze_backbone: bool = True,
    use_lora: bool = False,
    lora: Mapping[str, Any] | None = None,
    **settings: Any,
) -> SegFormerSegmentationModel:
    """Builds the network with random weights, outside nnU-Net's pipeline.

    Args:
        num_classes: K.
        input_channels: C.
        backbone_name: family, see `nnunetv2.model.backbones.FAMILIES`.
        backbone_size: size within the family.
        freeze_backbone: train the head alone; without effect if `use_lora`.
        use_lora: train low-rank adapters in the backbone.
        lora: their settings, see `apply_lora`.
        settings: further arguments of `SegFormerSegmentationModel`.
    """
    tuning = "lora" if use_lora else "frozen" if freeze_backbone else "full"
    return SegFormerSegmentationModel(
        input_channels,
        num_classes,
        backbone=backbone_name,
        backbone_size=backbone_size,
        tuning=tuning,
        lora=lora,
        **settings,
    )
