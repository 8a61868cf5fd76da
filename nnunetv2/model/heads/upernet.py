"""UperNet on a vision transformer, followed by four upsampling stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head import BackboneSpec, DenseHead, Features, register_head
from nnunetv2.model.head_config import DenseHeadConfig

NUM_STAGES = 4
_SMALLEST_WIDTH = 32


@register_head("upernet")
class UperNet(DenseHead):
    """UperNet's head with pyramid pooling, then four learned stages that double the resolution.

    The head is transformers' `UperNetHead`; the stages are `ProgressiveUpsampleDecoder`.

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
        """Upsample in four learned stages with skip connections from the backbone; false: bilinear."""
        dropout: float = 0.1
        """Probability of dropping a channel of the head's features while training, in [0, 1)."""

        def __post_init__(self) -> None:
            require_choice("model.head_type", self.head_type, ("upernet",))
            require_range("model.hidden_size", self.hidden_size, 8)
            require_range("model.dropout", self.dropout, 0, 0.99)

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return shape.patch_size / 2**NUM_STAGES if self.use_progressive_upsample else shape.patch_size

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
        else:  # dropout precedes the classifier in both cases
            self.head.classifier = nn.Sequential(self.dropout, self.head.classifier)

    def forward(self, features: Features) -> Tensor:
        if self.training and len(features.image) == 1:
            raise UsageError(
                "UperNet's pyramid pooling normalises over the batch and cannot be trained with one image per process; "
                "give a batch_size of at least 2 per process (training.batch_size=2 for one)"
            )
        decoded = self.head(features.maps)
        return decoded if self.upsample is None else self.upsample(self.dropout(decoded), features.maps)


class UpsampleStage(nn.Module):
    """Doubles the resolution and fuses a map of the backbone as skip connection.

    Args:
        in_channels: channels of the input.
        skip_channels: channels of the backbone's map.
        out_channels: channels of the result.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, out_channels, kernel_size=1)
        self.mix = nn.Sequential(
            nn.Conv2d(in_channels + out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(8, out_channels),
            nn.GELU(),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(8, out_channels),
            nn.GELU(),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, in, h, w) and a map (B, skip, *, *) of any size -> (B, out, 2h, 2w)."""
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        skip = F.interpolate(self.skip(skip), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.mix(torch.cat((x, skip), dim=1))


class ProgressiveUpsampleDecoder(nn.Module):
    """Four upsampling stages, sixteen times the resolution; the deepest backbone map is the first skip.

    Args:
        in_channels: channels of the input.
        skip_channels: channels of the backbone's maps.
        num_classes: K.
    """

    def __init__(self, in_channels: int, skip_channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [max(in_channels // 2 ** (stage + 1), _SMALLEST_WIDTH) for stage in range(NUM_STAGES)]
        self.stages = nn.ModuleList(
            UpsampleStage(before, skip_channels, width)
            for before, width in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.classifier = nn.Conv2d(widths[-1], num_classes, kernel_size=1)

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """(B, in, h, w) and four maps, shallowest first -> logits (B, K, 16h, 16w)."""
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(x, skip)
        return self.classifier(x)
