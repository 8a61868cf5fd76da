"""Dino U-Net: DINOv3's adapter, a projection of its four maps that shares one basis, and nnU-Net's U-Net decoder.

Shapes: B batch, D embed dim, r rank, H W size of the image, K classes; scales at 1/4, 1/8, 1/16 and 1/32 of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from dinov3.eval.segmentation.models.backbone.dinov3_adapter import SIZE_MULTIPLE, DINOv3_Adapter
from dinov3.utils.yaml_config import require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head import BackboneSpec, DenseHead, Features, register_head
from nnunetv2.model.head_config import DenseHeadConfig
from nnunetv2.model.resized_backbone import with_patches_of_16, without_resizing

NUM_SCALES = 4
_SLOPE = 0.01  # of nnU-Net's leaky ReLUs below 0
_SQUEEZE = 16  # squeeze-excitation narrows its channels by this factor


@register_head("fapm")
class DinoUNet(DenseHead):
    """Dino U-Net: projects an adapter's maps to the widths of a U-Net (FAPM) and decodes them at full resolution.

    For fine structures and exact borders: the adapter's CNN sees the pixels, and the last skip has the image's size.

    Source: Gao et al. 2025, "Dino U-Net: Exploiting High-Fidelity Dense Features from Foundation Models for Medical
    Image Segmentation", arXiv:2508.20909.
    """

    @dataclass
    class Config(DenseHeadConfig):
        """Backbone, adapter, projection and decoder."""

        training_only: ClassVar[tuple[str, ...]] = ("drop_path_rate", "gradient_checkpointing")

        rank: int = 256
        """Channels r of the basis that all scales share, and of each scale's own; at least 1."""
        widths: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
        """Channels of the U-Net at 1/1, 1/2, 1/4 and 1/8 of the image; the first are most of the memory."""
        drop_path_rate: float = 0.3
        """Probability that an image skips a feed-forward network of the adapter while training, in [0, 1)."""
        gradient_checkpointing: bool = True
        """Recompute the adapter in the backward pass: less memory, more time."""

        def __post_init__(self) -> None:
            require_range("model.rank", self.rank, 1)
            if len(self.widths) != NUM_SCALES or min(self.widths) < 1:
                raise UsageError(
                    f"model.widths={self.widths} must be {NUM_SCALES} numbers of channels of at least 1, for example "
                    f"[32,64,128,256]"
                )
            require_range("model.drop_path_rate", self.drop_path_rate, 0, 0.99)

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return 1

    classifier: ClassVar[tuple[str, ...]] = ("decoder.classifier",)
    part_labels: ClassVar[dict[str, str]] = {
        "adapter.backbone": "backbone",
        "adapter": "adapter",
        "fapm": "feature projection",
        "ups": "upsampling",
    }
    owns_backbone = True
    size_multiple = SIZE_MULTIPLE

    def __init__(
        self, config: Config, spec: BackboneSpec, num_classes: int, backbone: Backbone, blocks: Sequence[int]
    ) -> None:
        super().__init__(config, spec, num_classes)
        self.adapter = DINOv3_Adapter(
            with_patches_of_16(backbone),
            interaction_indexes=blocks,
            drop_path_rate=config.drop_path_rate,
            with_cp=config.gradient_checkpointing,
            freeze_backbone=False,
            in_channels=spec.in_channels,
        )
        self.fapm = FAPM(spec.embed_dim, config.rank, config.widths)
        self.ups = nn.ModuleList(FourfoldUpsampling(width) for width in config.widths)
        self.decoder = UNetDecoder(config.widths, num_classes)

    @property
    def backbone(self) -> Backbone:
        return without_resizing(self.adapter.backbone)

    def forward(self, features: Features) -> Tensor:
        """Returns logits (B, K, H, W)."""
        maps = self.fapm(features.fused(list(self.adapter(features.image).values())))
        return self.decoder([up(level) for up, level in zip(self.ups, maps, strict=True)])


class FAPM(nn.Module):
    """Fidelity-aware projection: what all scales share modulates what is each scale's own; then each is refined.

    Args:
        dim: D.
        rank: r.
        widths: channels of each scale's result.
    """

    def __init__(self, dim: int, rank: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.shared_basis = nn.Conv2d(dim, rank, kernel_size=1)
        self.specific_bases = nn.ModuleList(nn.Conv2d(dim, rank, kernel_size=1) for _ in widths)
        self.film_generators = nn.ModuleList(nn.Conv2d(rank, 2 * rank, kernel_size=1) for _ in widths)
        self.refinement_blocks = nn.ModuleList(_refinement(rank, width) for width in widths)
        self.shortcut_projections = nn.ModuleList(
            nn.Identity() if width == rank else nn.Conv2d(rank, width, kernel_size=1) for width in widths
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map (B, D, *, *) per scale -> one (B, width, *, *) each."""
        results = []
        for own, film, refine, shortcut, level in zip(
            self.specific_bases,
            self.film_generators,
            self.refinement_blocks,
            self.shortcut_projections,
            maps,
            strict=True,
        ):
            scale, shift = film(self.shared_basis(level)).chunk(2, dim=1)
            modulated = scale * own(level) + shift
            results.append(refine(modulated) + shortcut(modulated))
        return results


def _refinement(in_channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, kernel_size=1),
        InstanceNorm(width, affine=True),
        nn.LeakyReLU(_SLOPE),
        SeparableConv(width),
        nn.Conv2d(width, width, kernel_size=1),
        SqueezeExcitation(width),
    )


class InstanceNorm(nn.InstanceNorm2d):
    """Instance norm that accepts maps of one pixel, which become 0 before scale and shift.

    PyTorch's rejects them in eval mode too, and the coarsest map of an image of up to 32 x 32 pixels is one.
    """

    def forward(self, x: Tensor) -> Tensor:
        cudnn = torch.backends.cudnn.enabled
        return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, cudnn)


class SeparableConv(nn.Module):
    """Depth-wise 3x3 and point-wise convolution, norm and activation; the number of channels stays."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)
        self.pointwise = nn.Conv2d(width, width, kernel_size=1)
        self.bn = InstanceNorm(width, affine=True)  # named as in the released files
        self.activation = nn.LeakyReLU(_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.pointwise(self.depthwise(x))))


class SqueezeExcitation(nn.Module):
    """Weights each channel of an image by what all channels have on average.

    Source: Hu et al. 2018, "Squeeze-and-Excitation Networks", section 3, arXiv:1709.01507.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // _SQUEEZE)
        self.fc = nn.Sequential(
            nn.Conv2d(width, hidden, kernel_size=1), nn.ReLU(), nn.Conv2d(hidden, width, kernel_size=1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3), keepdim=True))


class FourfoldUpsampling(nn.Module):
    """One transposed convolution, applied twice: (B, width, h, w) -> (B, width, 4h, 4w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up2 = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up2(self.up2(x))


class UNetDecoder(nn.Module):
    """nnU-Net's decoder with one output: each stage doubles the resolution and mixes in a skip by two convolutions.

    Args:
        widths: channels of the skips, the finest first.
        num_classes: K.
    """

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        below, width = widths[:0:-1], widths[-2::-1]
        self.transpconvs = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, kernel_size=2, stride=2) for wide, narrow in zip(below, width, strict=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*_conv_block(2 * narrow, narrow), *_conv_block(narrow, narrow)) for narrow in width
        )
        self.classifier = nn.Conv2d(widths[0], num_classes, kernel_size=1)

    def forward(self, skips: Sequence[Tensor]) -> Tensor:
        """One (B, width, *, *) per scale, the finest (B, widths[0], H, W) first -> logits (B, K, H, W)."""
        x, *finer = reversed(skips)
        for enlarge, mix, skip in zip(self.transpconvs, self.stages, finer, strict=True):
            x = mix(torch.cat((enlarge(x), skip), dim=1))
        return self.classifier(x)


def _conv_block(in_channels: int, width: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, width, kernel_size=3, padding=1),
        InstanceNorm(width, affine=True),
        nn.LeakyReLU(_SLOPE, inplace=True),
    )
