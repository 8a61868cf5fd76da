"""UperNet on a vision transformer, with four stages that double the resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.head import BackboneSpec, DenseHead, Features, register_head
from nnunetv2.model.head_config import DenseHeadConfig
from nnunetv2.model.progressive_upsampling import ProgressiveUpsampleDecoder


@register_head("upernet")
class UperNet(DenseHead):
    """Transformers' `UperNetHead` on four maps of one scale, and `ProgressiveUpsampleDecoder` behind it.

    Source: Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", section 3.1, arXiv:1807.10221.
    """

    @dataclass
    class Config(DenseHeadConfig):
        """Backbone, UperNet head and upsampling."""

        network_class: ClassVar[str] = "nnunetv2.model.model.ViTSegmentationModel"

        head_type: str = "upernet"
        """Head: upernet."""
        hidden_size: int = 256
        """Channels of the head; a multiple of 8."""
        use_progressive_upsample: bool = True
        """Enlarge in four learned stages with skip connections from the backbone; false: bilinearly."""
        dropout: float = 0.1
        """Probability of dropping a channel of the head's features while training, in [0, 1)."""

        def __post_init__(self) -> None:
            require_choice("model.head_type", self.head_type, ("upernet",))
            require_range("model.hidden_size", self.hidden_size, 8)
            require_range("model.dropout", self.dropout, 0, 0.99)

    classifier: ClassVar[tuple[str, ...]] = ("head.classifier", "upsample.classifier")
    part_labels: ClassVar[dict[str, str]] = {"upsample": "upsampling"}

    def __init__(self, config: Config, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        from transformers import UperNetConfig
        from transformers.models.upernet.modeling_upernet import UperNetHead

        options = UperNetConfig(hidden_size=config.hidden_size, num_labels=num_classes, use_auxiliary_head=False)
        self.head = UperNetHead(options, in_channels=[spec.embed_dim] * config.num_blocks)
        self.dropout = nn.Dropout2d(config.dropout)
        self.upsample = None
        if config.use_progressive_upsample:
            self.head.classifier = nn.Identity()
            self.upsample = ProgressiveUpsampleDecoder(config.hidden_size, spec.embed_dim, num_classes)
        else:  # dropout stands in front of the classifier in both cases
            self.head.classifier = nn.Sequential(self.dropout, self.head.classifier)

    def forward(self, features: Features) -> Tensor:
        if self.training and len(features.image) == 1:
            raise UsageError(
                "UperNet's pyramid pooling normalises over the batch and cannot be trained with one image per process; "
                "give a batch_size of at least 2 per process (training.batch_size=2 for one)"
            )
        decoded = self.head(features.maps)
        return decoded if self.upsample is None else self.upsample(self.dropout(decoded), features.maps)
