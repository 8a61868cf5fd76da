"""SegFormer's decode head on a vision transformer, and the four-scale pyramid that it expects.

Shapes: B batch, D embed dim, p patch size, maps of the backbone (B, D, H/p, W/p).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head import BackboneSpec, DenseHead, Features, register_head
from nnunetv2.model.head_config import DenseHeadConfig

STRATEGIES = ("layers", "pyramid", "progressive")
NUM_MAPS = 4


@register_head("segformer")
class SegFormer(DenseHead):
    """SegFormer's decode head on a pyramid made of four maps of one scale.

    The head is transformers' `SegformerDecodeHead`.

    Source: Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
    section 3.2, arXiv:2105.15203.
    """

    @dataclass
    class Config(DenseHeadConfig):
        """Backbone, pyramid and decode head."""

        network_class: ClassVar[str] = "nnunetv2.model.model_segformer.SegFormerSegmentationModel"
        not_in_network: ClassVar[tuple[str, ...]] = ("num_encoder_blocks",)

        feature_strategy: str = "pyramid"
        """How four maps of one scale become the head's input: layers (unchanged), pyramid (each depth is rescaled, 1/4
        to 1/32) or progressive (from coarse to fine, each scale adds one more depth)."""
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

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return shape.patch_size if self.feature_strategy == "layers" else shape.patch_size / 4

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


class SameScale(nn.Module):
    """`layers`: passes the maps through unchanged; four depths, one scale."""

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Returns the maps."""
        return list(maps)


class ScalePyramid(nn.Module):
    """`pyramid`: rescales each depth to its own scale, 4, 2, 1 and 1/2 times that of the backbone.

    With a patch of 16 that is 1/4, 1/8, 1/16 and 1/32 of the image.

    Args:
        dim: D.

    Source: Li et al. 2022, "Exploring Plain Vision Transformer Backbones for Object Detection", section 3,
    arXiv:2203.16527.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2),
                    nn.GroupNorm(1, dim),
                    nn.GELU(),
                    nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2),
                ),
                nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2),
                nn.Identity(),
                nn.Conv2d(dim, dim, kernel_size=2, stride=2),
            ]
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps of one scale -> four scales, finest first. A last map of one row or column keeps its size."""
        *finer, coarsest = maps
        odd = [side % 2 for side in coarsest.shape[-2:]]
        coarsest = F.pad(coarsest, (0, odd[1], 0, odd[0]), mode="replicate")
        return [scale(level) for scale, level in zip(self.scales, [*finer, coarsest], strict=True)]


class ProgressivePyramid(nn.Module):
    """`progressive`: starts at the deepest map; each finer scale is the upsampled coarser one plus an earlier depth.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(dim, dim, kernel_size=3, stride=2, padding=1)
        self.lateral = nn.ModuleList(nn.Conv2d(dim, dim, kernel_size=1) for _ in range(NUM_MAPS - 1))
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim), nn.GroupNorm(1, dim), nn.GELU())
            for _ in range(NUM_MAPS - 1)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps of one scale -> four scales, finest first."""
        height, width = maps[-1].shape[-2:]
        levels = [self.down(maps[-1])]
        steps = zip(self.lateral, self.smooth, reversed(maps[:-1]), strict=True)
        for step, (lateral, smooth, depth) in enumerate(steps):
            size = (height * 2**step, width * 2**step)
            enlarged = F.interpolate(levels[0], size=size, mode="bilinear", align_corners=False)
            skip = F.interpolate(lateral(depth), size=size, mode="bilinear", align_corners=False)
            levels.insert(0, smooth(enlarged + skip))
        return levels


def feature_pyramid(strategy: str, dim: int) -> nn.Module:
    """Builds the module of a strategy.

    Args:
        strategy: `layers`, `pyramid` or `progressive`.
        dim: D.

    Raises:
        ValueError: the strategy is unknown.
    """
    if strategy == "layers":
        return SameScale()
    if strategy == "pyramid":
        return ScalePyramid(dim)
    if strategy == "progressive":
        return ProgressivePyramid(dim)
    raise ValueError(f"model.feature_strategy={strategy!r} is not known; choose one of {', '.join(STRATEGIES)}")
