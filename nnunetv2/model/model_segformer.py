"""SegFormer's decode head on a vision transformer, as a network for nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunetv2.model.dense_network import DenseViTNetwork
from nnunetv2.model.vit_network import FlatNames


class SegFormerSegmentationModel(FlatNames, DenseViTNetwork):
    """`ViTNetwork` with the head `segformer`; the head's settings are direct arguments."""

    head_name = "segformer"


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
        freeze_backbone: train only the head; ignored if `use_lora`.
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
