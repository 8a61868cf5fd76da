"""DPT: reassembles tokens of four depths into a feature pyramid and fuses it from coarse to fine.

Shapes: B batch, D embed dim, h x w patches, F fusion width, K classes.
"""

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

READOUT_TYPES = ("project", "add", "ignore")
NUM_LEVELS = 4
_LARGE = 1024  # width of ViT-Large; from here on, the paper's wider pyramid applies


@register_head("dpt")
class DPT(DenseHead):
    """DPT: reassembles a pyramid from four blocks and fuses it to the resolution of the image.

    A strong all-round head at moderate cost: the deepest block adds context, the finest level contours.

    Submodules have the names of transformers' `DPTForSemanticSegmentation`. That class also has a residual unit in the
    deepest fusion block that nothing uses; it is left out here, as unused parameters get no gradient.

    Source: Ranftl et al. 2021, "Vision Transformers for Dense Prediction", section 3, arXiv:2103.13413.
    """

    @dataclass
    class Config(DenseHeadConfig):
        """Backbone, pyramid, fusion and classifier."""

        training_only: ClassVar[tuple[str, ...]] = ("dropout",)

        fusion_hidden_size: int = 256
        """Channels F of the fusion and the classifier."""
        readout_type: str = "project"
        """How the class token is used: project (a linear layer mixes it into each patch), add (to each patch) or
        ignore."""
        neck_hidden_sizes: list[int] | None = None
        """Channels of the four pyramid levels, finest first; null: the paper's fractions of the backbone's width, 1/8,
        1/4, 1/2, 1, or from ViT-Large on 1/4, 1/2, 1, 1."""
        use_batch_norm_in_fusion_residual: bool = True
        """Batch norm in the fusion blocks; use false for very small batches."""
        dropout: float = 0.1
        """Probability of dropping a value before the classifier while training, in [0, 1)."""

        def __post_init__(self) -> None:
            require_range("model.fusion_hidden_size", self.fusion_hidden_size, 1)
            require_choice("model.readout_type", self.readout_type, READOUT_TYPES)
            widths = self.neck_hidden_sizes
            if widths is not None and (len(widths) != NUM_LEVELS or min(widths) < 1):
                raise UsageError(
                    f"model.neck_hidden_sizes={widths} must be {NUM_LEVELS} numbers of channels of at least 1, for "
                    f"example [96,192,384,768], or null"
                )
            require_range("model.dropout", self.dropout, 0, 0.99)

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return shape.patch_size / 16

    classifier: ClassVar[tuple[str, ...]] = ("head.head.4",)
    part_labels: ClassVar[dict[str, str]] = {
        "neck.reassemble_stage": "reassembly",
        "neck.convs": "projections to the fusion width",
        "neck.fusion_stage": "fusion",
        "head": "classifier",
    }

    def __init__(self, config: Config, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        if config.readout_type != "ignore" and not spec.num_prefix_tokens:
            raise ValueError(
                f"model.readout_type={config.readout_type} needs a backbone with a class token; set it to ignore"
            )
        widths = config.neck_hidden_sizes or default_widths(spec.embed_dim)
        self.neck = Neck(
            spec.embed_dim,
            widths,
            config.fusion_hidden_size,
            readout_type=config.readout_type,
            has_batch_norm=config.use_batch_norm_in_fusion_residual,
        )
        self.head = Classifier(config.fusion_hidden_size, num_classes, config.dropout)
        self.has_batch_norm = config.use_batch_norm_in_fusion_residual

    def forward(self, features: Features) -> Tensor:
        """Returns logits (B, K, 16h, 16w); odd h or w is rounded up to the next even number."""
        if self.training and self.has_batch_norm:
            _require_several_values(features.maps[0])
        return self.head(self.neck(features.maps, features.class_tokens))


def default_widths(embed_dim: int) -> list[int]:
    """Returns the paper's pyramid channels, finest level first, scaled to a backbone of width D."""
    divisors = (4, 2, 1, 1) if embed_dim >= _LARGE else (8, 4, 2, 1)
    return [max(embed_dim // divisor, 1) for divisor in divisors]


class Neck(nn.Module):
    """Reassembles four maps of one scale and fuses them into one map of eight times that scale.

    Args:
        dim: D.
        widths: channels of the pyramid levels, finest first.
        fusion_width: F.
        readout_type: see `Readout`.
        has_batch_norm: use batch norm in the fusion blocks.
    """

    def __init__(
        self, dim: int, widths: Sequence[int], fusion_width: int, *, readout_type: str, has_batch_norm: bool
    ) -> None:
        super().__init__()
        self.reassemble_stage = Reassembly(dim, widths, readout_type)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, fusion_width, kernel_size=3, padding=1, bias=False) for width in widths
        )
        self.fusion_stage = Fusion(len(widths), fusion_width, has_batch_norm=has_batch_norm)

    def forward(self, maps: Sequence[Tensor], class_tokens: Sequence[Tensor]) -> Tensor:
        """Four maps (B, D, h, w), shallowest first, and their class tokens (B, D) -> (B, F, 8h, 8w)."""
        levels = self.reassemble_stage(maps, class_tokens)
        return self.fusion_stage([conv(level) for conv, level in zip(self.convs, levels, strict=True)])


class Reassembly(nn.Module):
    """Mixes class tokens into the maps and rescales each map: by 4, 2, 1 and 1/2.

    Args:
        dim: D.
        widths: channels of the four levels.
        readout_type: `project`, `add` or `ignore` the class token.
    """

    def __init__(self, dim: int, widths: Sequence[int], readout_type: str) -> None:
        super().__init__()
        self.readout_type = readout_type
        if readout_type == "project":
            self.readout_projects = nn.ModuleList(nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU()) for _ in widths)
        rescalings = (
            lambda width: nn.ConvTranspose2d(width, width, kernel_size=4, stride=4),
            lambda width: nn.ConvTranspose2d(width, width, kernel_size=2, stride=2),
            lambda width: nn.Identity(),
            lambda width: nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1),
        )
        self.layers = nn.ModuleList(
            nn.ModuleDict({"projection": nn.Conv2d(dim, width, kernel_size=1), "resize": rescaling(width)})
            for width, rescaling in zip(widths, rescalings, strict=True)
        )

    def forward(self, maps: Sequence[Tensor], class_tokens: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (B, D, h, w) and class tokens (B, D) -> maps of scales 4, 2, 1 and 1/2, odd sizes rounded up."""
        if self.readout_type == "project":
            pairs = zip(self.readout_projects, maps, class_tokens, strict=True)
            maps = [_projected(projection, level, token) for projection, level, token in pairs]
        elif self.readout_type == "add":
            maps = [level + token[:, :, None, None] for level, token in zip(maps, class_tokens, strict=True)]
        return [layer["resize"](layer["projection"](level)) for layer, level in zip(self.layers, maps, strict=True)]


def _projected(projection: nn.Module, level: Tensor, token: Tensor) -> Tensor:
    patches = level.permute(0, 2, 3, 1)  # (B, h, w, D)
    pairs = torch.cat((patches, token[:, None, None, :].expand_as(patches)), dim=-1)
    return projection(pairs).permute(0, 3, 1, 2)


class Fusion(nn.Module):
    """One fusion block per level, the deepest first."""

    def __init__(self, num_levels: int, width: int, *, has_batch_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            FusionBlock(width, has_skip=number > 0, has_batch_norm=has_batch_norm) for number in range(num_levels)
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Maps (B, F, *, *), finest first -> (B, F, 2H, 2W), where H x W is about the size of the finest map."""
        *finer, deepest = levels
        first, *others = self.layers
        fused = first(deepest)
        for block, skip in zip(others, reversed(finer), strict=True):
            fused = block(fused, skip)
        return fused


class FusionBlock(nn.Module):
    """Adds a finer map to the fused one, refines the sum and doubles its resolution.

    Args:
        width: F.
        has_skip: false for the deepest block, which has no map to add.
        has_batch_norm: see `ResidualUnit`.
    """

    def __init__(self, width: int, *, has_skip: bool, has_batch_norm: bool) -> None:
        super().__init__()
        if has_skip:
            self.residual_layer1 = ResidualUnit(width, has_batch_norm=has_batch_norm)
        self.residual_layer2 = ResidualUnit(width, has_batch_norm=has_batch_norm)
        self.projection = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, fused: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, F, h, w) and a map of about this size -> (B, F, 2h, 2w)."""
        if skip is not None:
            if skip.shape[-2:] != fused.shape[-2:]:  # an odd number of patches was halved and rounded up
                skip = F.interpolate(skip, size=fused.shape[-2:], mode="bilinear", align_corners=False)
            fused = fused + self.residual_layer1(skip)
        return self.projection(_enlarged(self.residual_layer2(fused)))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each preceded by a ReLU, and a shortcut.

    Args:
        width: F.
        has_batch_norm: batch norm after each convolution, which then has no bias.
    """

    def __init__(self, width: int, *, has_batch_norm: bool) -> None:
        super().__init__()
        has_bias = not has_batch_norm
        self.convolution1 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=has_bias)
        self.convolution2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=has_bias)
        self.batch_norm1 = nn.BatchNorm2d(width) if has_batch_norm else nn.Identity()
        self.batch_norm2 = nn.BatchNorm2d(width) if has_batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        hidden = self.batch_norm1(self.convolution1(F.relu(x)))
        return x + self.batch_norm2(self.convolution2(F.relu(hidden)))


class Classifier(nn.Module):
    """(B, F, h, w) -> logits (B, K, 2h, 2w)."""

    def __init__(self, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, num_classes, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return _enlarged(self.head(x))


def _enlarged(x: Tensor) -> Tensor:
    """Doubles height and width with the sampling of the paper's implementation."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _require_several_values(level: Tensor) -> None:
    """Batch norm needs two values per channel at the coarsest level, which has half the patches per axis."""
    batch_size, _, height, width = level.shape
    if batch_size == 1 and max(height, width) <= 2:
        raise UsageError(
            "DPT's batch norm cannot be trained on one image of 2 x 2 patches or fewer per process; give larger images "
            "or a batch_size of at least 2 per process (training.batch_size=2 for one), or set "
            "model.use_batch_norm_in_fusion_residual=false"
        )
