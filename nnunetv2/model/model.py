"""UperNet on a vision transformer, as a network for nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.dense_network import DenseViTNetwork
from nnunetv2.model.feature_pyramid import NUM_MAPS
from nnunetv2.model.progressive_upsampling import ProgressiveUpsampleDecoder


class ViTSegmentationModel(DenseViTNetwork):
    """ViT backbone, transformers' `UperNetHead`, and four stages that double the resolution.

    Args:
        head_type: `upernet`.
        backbone_out_layers: name of a choice of four blocks, or their 0-based numbers.
        hidden_size: channels of the head; a multiple of 16.
        use_progressive_upsample: enlarge the head's features in four learned stages with skip connections from the
            backbone; otherwise the logits are enlarged bilinearly.
        dropout: probability in [0, 1) of dropping a channel of the head's features in training.

    The other arguments are those of `ViTNetwork`.

    Source: Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", section 3.1, arXiv:1807.10221.
    """

    def build_head(
        self,
        vit: Backbone,
        num_classes: int,
        *,
        head_type: str = "upernet",
        backbone_out_layers: str | Sequence[int] = "FOUR_EVEN_INTERVALS",
        hidden_size: int = 256,
        use_progressive_upsample: bool = True,
        dropout: float = 0.1,
    ) -> None:
        from transformers import UperNetConfig
        from transformers.models.upernet.modeling_upernet import UperNetHead

        if head_type != "upernet":
            raise ValueError(f"model.head_type={head_type!r} is not known; choose upernet")
        self.read_blocks(vit, backbone_out_layers)
        config = UperNetConfig(hidden_size=hidden_size, num_labels=num_classes, use_auxiliary_head=False)
        self.head = UperNetHead(config, in_channels=[vit.embed_dim] * NUM_MAPS)
        self.dropout = nn.Dropout2d(dropout)
        self.upsample = None
        if use_progressive_upsample:
            self.head.classifier = nn.Identity()
            self.upsample = ProgressiveUpsampleDecoder(hidden_size, vit.embed_dim, num_classes)
        else:  # dropout goes before the classifier in both cases
            self.head.classifier = nn.Sequential(self.dropout, self.head.classifier)

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        if self.training and len(maps[0]) == 1:
            raise UsageError(
                "UperNet's pyramid pooling normalises over the batch and cannot be trained with one image per process; "
                "give a batch_size of at least 2 per process (training.batch_size=2 for one)"
            )
        features = self.head(maps)
        return features if self.upsample is None else self.upsample(self.dropout(features), maps)


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
        freeze_backbone: train the head alone; without effect if `use_lora`.
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
