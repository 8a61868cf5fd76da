"""UperNet on a vision transformer, as a network for nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunetv2.model.dense_network import DenseViTNetwork
from nnunetv2.model.vit_network import FlatNames


class ViTSegmentationModel(FlatNames, DenseViTNetwork):
    """`ViTNetwork` with the head `upernet`; the head's settings are direct arguments."""

    head_name = "upernet"


def create_segmentation_model(
    backbone_name: str = "dinov3",
    backbone_size: str = "large",
    head_type: str = "upernet",
    num_classes: int = 2,
    freeze_backbone: bool = True,
    use_progressive_upsample: bool = True,
    use_lora: bool = False,
    lora_rank: int = 8,
    *,
    input_channels: int = 3,
    lora: Mapping[str, Any] | None = None,
    **settings: Any,
) -> ViTSegmentationModel:
    """Builds the network with random weights, outside nnU-Net's pipeline.

    Args:
        backbone_name: family, see `nnunetv2.model.backbones.FAMILIES`.
        backbone_size: size within the family.
        head_type: `upernet`.
        num_classes: K.
        freeze_backbone: train only the head; ignored if `use_lora`.
        use_progressive_upsample: see `ViTSegmentationModel`.
        use_lora: train low-rank adapters in the backbone.
        lora_rank: their rank.
        input_channels: C.
        lora: their other settings, see `apply_lora`.
        settings: further arguments of `ViTSegmentationModel`.
    """
    return ViTSegmentationModel(
        input_channels,
        num_classes,
        backbone=backbone_name,
        backbone_size=backbone_size,
        tuning="lora" if use_lora else "frozen" if freeze_backbone else "full",
        lora={"r": lora_rank, **(lora or {})},
        head_type=head_type,
        use_progressive_upsample=use_progressive_upsample,
        **settings,
    )
