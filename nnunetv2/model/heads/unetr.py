"""UNETR in two dimensions: a U-Net decoder on maps of four depths.

Shapes: B batch, D embed dim, C channels of the image, h x w patches, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head import BackboneSpec, DenseHead, Features, register_head
from nnunetv2.model.head_config import DenseHeadConfig

UPSAMPLE_MODES = ("deconv", "bilinear")
NUM_WIDTHS = 5
_GROUPS = (8, 4, 2, 1)  # of a group norm; the first that divides the channels


@register_head("unetr")
class UNETR(DenseHead):
    """UNETR: enlarges maps of four depths to 1/8, 1/4, 1/2 and 1/1 of the image and decodes them like a U-Net.

    Learned upsampling at every scale, for fine structures; its convolutions at full resolution cost most of the memory.

    Source: Hatamizadeh et al. 2022, "UNETR: Transformers for 3D Medical Image Segmentation", section 3.1,
    arXiv:2103.10504. In the paper, the decoder starts from 1/16, has residual blocks, and its last skip is the image,
    as with `image_skip` here.
    """

    @dataclass
    class Config(DenseHeadConfig):
        """Backbone, skips and decoder."""

        decoder_channels: list[int] = field(default_factory=lambda: [512, 256, 128, 64, 32])
        """Channels at 1/8, 1/4, 1/2 and 1/1 of the image, and before the classifier."""
        negative_slope: float = 0.01
        """Slope of the leaky ReLUs below 0, in [0, 1]."""
        upsample_mode: str = "deconv"
        """Upsampling in the decoder: deconv (transposed convolution) or bilinear."""
        image_skip: bool = False
        """Feed the image through a residual block into the last decoder stage; adds pixel detail that the maps of a
        frozen backbone lack."""

        def __post_init__(self) -> None:
            widths = self.decoder_channels
            if len(widths) != NUM_WIDTHS or min(widths) < 1:
                raise UsageError(
                    f"model.decoder_channels={widths} must be {NUM_WIDTHS} numbers of channels of at least 1, for "
                    f"example [512,256,128,64,32]"
                )
            require_range("model.negative_slope", self.negative_slope, 0, 1)
            require_choice("model.upsample_mode", self.upsample_mode, UPSAMPLE_MODES)

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return 1 if self.image_skip else shape.patch_size / 16

    classifier: ClassVar[tuple[str, ...]] = ("decoder.seg_head",)
    part_labels: ClassVar[dict[str, str]] = {"encoder": "skips", "image_block": "image skip"}

    def __init__(self, config: Config, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        widths, slope = config.decoder_channels, config.negative_slope
        self.encoder = Skips(spec.embed_dim, widths[:-1], slope)
        self.image_block = ImageBlock(spec.in_channels, widths[-1], slope) if config.image_skip else None
        self.decoder = Decoder(
            widths,
            num_classes,
            slope,
            upsample_mode=config.upsample_mode,
            image_width=widths[-1] if config.image_skip else 0,
        )

    def forward(self, features: Features) -> Tensor:
        """Returns logits (B, K, 16h, 16w), or of the image's size with `image_skip`."""
        image = None if self.image_block is None else self.image_block(features.image)
        return self.decoder(self.encoder(features.maps), image)


class Skips(nn.Module):
    """Upsamples each map with as many blocks as its scale needs.

    Args:
        dim: D.
        widths: channels at 1/8, 1/4, 1/2 and 1/1.
        slope: of the leaky ReLUs below 0.
    """

    def __init__(self, dim: int, widths: Sequence[int], slope: float) -> None:
        super().__init__()
        self.z4_blocks = _enlarging_blocks(dim, widths[0], slope, number=1)
        self.z3_blocks = _enlarging_blocks(dim, widths[1], slope, number=2)
        self.z2_blocks = _enlarging_blocks(dim, widths[2], slope, number=3)
        self.z1_blocks = _enlarging_blocks(dim, widths[3], slope, number=4)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (B, D, h, w), the shallowest first -> maps of 2, 4, 8 and 16 times the size, deepest first."""
        blocks = (self.z1_blocks, self.z2_blocks, self.z3_blocks, self.z4_blocks)
        return [enlarge(level) for enlarge, level in zip(blocks, maps, strict=True)][::-1]


def _enlarging_blocks(in_channels: int, channels: int, slope: float, *, number: int) -> nn.Sequential:
    widths = [in_channels, *[channels] * (number - 1)]
    return nn.Sequential(*(EnlargingBlock(width, channels, slope) for width in widths))


class EnlargingBlock(nn.Module):
    """Transposed and 3x3 convolution, norm and activation: (B, in, h, w) -> (B, out, 2h, 2w)."""

    def __init__(self, in_channels: int, out_channels: int, slope: float) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.conv = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm = group_norm(out_channels)
        self.activation = nn.LeakyReLU(slope, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(self.deconv(x))))


class Decoder(nn.Module):
    """Doubles the resolution three times, with a skip at each scale, and classifies.

    Args:
        widths: channels at 1/8, 1/4, 1/2, 1/1 and before the classifier.
        num_classes: K.
        slope: of the leaky ReLUs below 0.
        upsample_mode: `deconv` or `bilinear`.
        image_width: channels of the image features; 0: no image features.
    """

    def __init__(
        self, widths: Sequence[int], num_classes: int, slope: float, *, upsample_mode: str, image_width: int = 0
    ) -> None:
        super().__init__()
        eighth, quarter, half, full, last = widths
        self.up4, width = _enlargement(eighth, quarter, upsample_mode)
        self.conv4 = ConvBlock(width + quarter, quarter, slope)
        self.up3, width = _enlargement(quarter, half, upsample_mode)
        self.conv3 = ConvBlock(width + half, half, slope)
        self.up2, width = _enlargement(half, full, upsample_mode)
        self.conv2 = ConvBlock(width + full, full, slope)
        self.conv1 = ConvBlock(full + image_width, last, slope)
        self.seg_head = nn.Conv2d(last, num_classes, kernel_size=1)

    def forward(self, skips: Sequence[Tensor], image: Tensor | None = None) -> Tensor:
        """Decodes the skips to logits.

        Args:
            skips: maps at 1/8, 1/4, 1/2 and 1/1 of the image.
            image: features of the image, (B, image_width, H, W).

        Returns:
            Logits (B, K, *, *) of the size of the image features, or of the last skip.
        """
        x, quarter, half, full = skips
        x = self.conv4(torch.cat((self.up4(x), quarter), dim=1))
        x = self.conv3(torch.cat((self.up3(x), half), dim=1))
        x = self.conv2(torch.cat((self.up2(x), full), dim=1))
        if image is not None:
            if x.shape[-2:] != image.shape[-2:]:  # patch size is not 16: 16 times the patch grid differs from the image
                x = F.interpolate(x, size=image.shape[-2:], mode="bilinear", align_corners=False)
            x = torch.cat((x, image), dim=1)
        return self.seg_head(self.conv1(x))


def _enlargement(in_channels: int, out_channels: int, mode: str) -> tuple[nn.Module, int]:
    """Returns the module that doubles the resolution, and its number of output channels."""
    if mode == "deconv":
        return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2), out_channels
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), in_channels


class ConvBlock(nn.Module):
    """Twice 3x3 convolution, norm and activation: (B, in, h, w) -> (B, out, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, slope: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = group_norm(out_channels)
        self.activation = nn.LeakyReLU(slope, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm1(self.conv1(x)))
        return self.activation(self.norm2(self.conv2(x)))


class ImageBlock(nn.Module):
    """Residual block on the image, UNETR's first encoder: (B, C, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, slope: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.InstanceNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm2d(out_channels)
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False), nn.InstanceNorm2d(out_channels)
            )
        self.activation = nn.LeakyReLU(slope)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.norm1(self.conv1(x)))
        return self.activation(self.norm2(self.conv2(hidden)) + self.shortcut(x))


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with 8 groups, or the next smaller power of two that divides the channels."""
    return nn.GroupNorm(next(groups for groups in _GROUPS if channels % groups == 0), channels)
