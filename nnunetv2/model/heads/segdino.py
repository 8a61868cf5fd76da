"""SegDINO v2: a pyramid of resized tokens, and residual blocks that carry the coarse levels into the fine ones.

Shapes: B batch, D embed dim, h x w patches, C width of the head, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.utils.yaml_config import require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head import BackboneSpec, DenseHead, Features, register_head
from nnunetv2.model.head_config import DenseHeadConfig

_GROUPS = 32


@register_head("segdino")
class SegDINO(DenseHead):
    """Token pyramid (TPA) and decoder across and within its scales (SAD) of SegDINO v2, at half the image's resolution.

    A light head without batch statistics: the next step up from a linear classifier on a frozen backbone.

    Source: SegDINO v2, arXiv:2606.17972; Yang et al. 2025, "SegDINO: An Efficient Design for Medical and Natural Image
    Segmentation with DINO-V3", arXiv:2509.00833.
    """

    @dataclass
    class Config(DenseHeadConfig):
        """Backbone and decoder."""

        width: int = 256
        """Channels C of all maps of the head: at most 32 or a multiple of 32; 512 for harder tasks."""

        def __post_init__(self) -> None:
            require_range("model.width", self.width, 1)
            if self.width > _GROUPS and self.width % _GROUPS:
                raise UsageError(
                    f"model.width={self.width} must be at most {_GROUPS} or a multiple of {_GROUPS}; the next one is "
                    f"{math.ceil(self.width / _GROUPS) * _GROUPS}"
                )

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return shape.patch_size / 8

    classifier: ClassVar[tuple[str, ...]] = ("out_conv",)
    part_labels: ClassVar[dict[str, str]] = {
        "token_projections": "token projections",
        "out_conv": "classifier",
        **{f"tpa_branch_{level}": f"pyramid level {level}" for level in range(1, 5)},
        **{f"sad_intra_{level}": f"block of level {level}" for level in range(1, 5)},
        **{f"sad_inter_{level}": f"fusion of level {level}" for level in range(1, 5)},
    }

    def __init__(self, config: Config, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        width = config.width
        self.token_projections = nn.ModuleList(
            nn.Conv2d(spec.embed_dim, width, kernel_size=1, bias=False) for _ in range(config.num_blocks)
        )
        self.tpa_branch_1 = PyramidLevel(width, 8)
        self.tpa_branch_2 = PyramidLevel(width, 4)
        self.tpa_branch_3 = PyramidLevel(width, 2)
        self.tpa_branch_4 = PyramidLevel(width, 1)
        self.sad_intra_1 = ResidualBlock(width)
        self.sad_intra_2 = ResidualBlock(width)
        self.sad_intra_3 = ResidualBlock(width)
        self.sad_intra_4 = ResidualBlock(width)
        self.sad_inter_1 = ResidualBlock(width)
        self.sad_inter_2 = ResidualBlock(width)
        self.sad_inter_3 = ResidualBlock(width)
        self.sad_inter_4 = ResidualBlock(width)
        self.out_conv = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, features: Features) -> Tensor:
        """Returns logits (B, K, 8h, 8w)."""
        resize = (self.tpa_branch_1, self.tpa_branch_2, self.tpa_branch_3, self.tpa_branch_4)
        within = (self.sad_intra_1, self.sad_intra_2, self.sad_intra_3, self.sad_intra_4)
        layers = zip(self.token_projections, resize, within, features.maps, strict=True)
        first, second, third, fourth = [block(branch(project(tokens))) for project, branch, block, tokens in layers]
        x = self.sad_inter_4(fourth)
        x = self.sad_inter_3(_enlarged(x, 2) + third)
        x = self.sad_inter_2(_enlarged(x, 2) + second)
        x = self.sad_inter_1(_enlarged(x, 2) + first)
        return self.out_conv(x)


class PyramidLevel(nn.Module):
    """Resizes a map bilinearly and smooths it by a 3x3 convolution: (B, C, h, w) -> (B, C, factor h, factor w)."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(_enlarged(x, self.factor))


class ResidualBlock(nn.Module):
    """Adds a separable convolution of the input, scaled by a number that starts at 0: the block starts as identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.depthwise = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, kernel_size=1, bias=False)
        self.norm = GroupNorm(min(_GROUPS, width), width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * F.gelu(self.norm(self.pointwise(self.depthwise(x))))


class GroupNorm(nn.GroupNorm):
    """Group norm that accepts groups of a single value, which become 0 before scale and shift.

    PyTorch's rejects them in eval mode too: one image of one patch has them at a width of up to 32.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps, torch.backends.cudnn.enabled)


def _enlarged(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
