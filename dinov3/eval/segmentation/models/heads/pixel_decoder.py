"""Pixel decoder: deformable self-attention over three scales, then one step up to 1/4 of the image.

Shapes: B batch, C hidden channels, S cells of the three coarse maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.models.utils.ms_deform_attn import MSDeformAttn, Size, cell_centres
from dinov3.eval.segmentation.models.utils.position_encoding import sine_position_encoding
from dinov3.eval.segmentation.settings.head import DecoderConfig
from dinov3.utils.errors import UsageError

NUM_GROUPS = 32  # of the group norms
NUM_POINTS = 4  # sampling points per head and map of the deformable attention
FINEST = "1"
ATTENDED = ("4", "3", "2")  # coarsest first


class ConvNorm(nn.Conv2d):
    """Convolution without bias that keeps the size, followed by a group norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.GroupNorm(NUM_GROUPS, out_channels)
        nn.init.kaiming_uniform_(self.weight, a=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Takes (B, in_channels, h, w) and returns (B, out_channels, h, w)."""
        return self.norm(super().forward(maps))


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each with post-norm."""

    def __init__(self, dim: int, dim_feedforward: int, num_heads: int) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(dim, n_levels=len(ATTENDED), n_heads=num_heads, n_points=NUM_POINTS)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, tokens: Tensor, position: Tensor, reference_points: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Takes (B, S, C), (1, S, C), (1, S, L, 2) and the level sizes; returns (B, S, C)."""
        tokens = self.norm1(tokens + self.self_attn(tokens + position, reference_points, tokens, sizes))
        return self.norm2(tokens + self.linear2(F.relu(self.linear1(tokens))))


class DeformableEncoder(nn.Module):
    """A stack of encoder layers."""

    def __init__(self, layers: Sequence[DeformableEncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor, position: Tensor, reference_points: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Takes the arguments of its layers and returns (B, S, C)."""
        for layer in self.layers:
            tokens = layer(tokens, position, reference_points, sizes)
        return tokens


class MultiScaleEncoder(nn.Module):
    """Deformable self-attention over all cells of several maps."""

    def __init__(self, layers: Sequence[DeformableEncoderLayer], dim: int) -> None:
        super().__init__()
        self.level_encoding = nn.Parameter(torch.empty(len(ATTENDED), dim))
        nn.init.normal_(self.level_encoding)
        self.encoder = DeformableEncoder(layers)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Takes maps (B, C, ., .) and returns maps of the same sizes."""
        sizes = tuple((level.shape[-2], level.shape[-1]) for level in levels)
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        position = torch.cat(
            [
                sine_position_encoding(*size, tokens.shape[-1], tokens.device).flatten(2).transpose(1, 2) + code
                for size, code in zip(sizes, self.level_encoding, strict=True)
            ],
            dim=1,
        ).to(tokens.dtype)
        centres = cell_centres(sizes, tokens.device)[None, :, None].expand(-1, -1, len(sizes), -1)  # (1, S, L, 2)
        tokens = self.encoder(tokens, position, centres, sizes)
        cells = tokens.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
        return [level.unflatten(-1, size) for level, size in zip(cells, sizes, strict=True)]


class MSDeformAttnPixelDecoder(nn.Module):
    """Converts a pyramid to mask features (1/4) and maps for the queries to attend to (1/32, 1/16, 1/8).

    Args:
        in_channels: Channels of the maps "1" (1/4) to "4" (1/32).
        hidden_dim: C, a multiple of 32.
        num_heads: Heads of the deformable attention; must divide C.
        dim_feedforward: Hidden width of the encoder's feed-forward networks.
        num_layers: Encoder layers.

    Raises:
        ValueError: If C is not a multiple of 32 or the channels of a map are missing.

    Source: Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation", section 4.1,
    arXiv:2112.01527; Zhu et al. 2021, "Deformable DETR", arXiv:2010.04159.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        *,
        hidden_dim: int = DecoderConfig.hidden_dim,
        num_heads: int = DecoderConfig.num_heads,
        dim_feedforward: int = DecoderConfig.dim_feedforward,
        num_layers: int = DecoderConfig.num_encoder_layers,
    ) -> None:
        super().__init__()
        if hidden_dim % NUM_GROUPS:
            raise ValueError(
                f"A hidden_dim of {hidden_dim} was given; its group norms need a multiple of {NUM_GROUPS}."
            )
        if missing := {FINEST, *ATTENDED} - set(in_channels):
            raise ValueError(f"The channels of the maps {sorted(missing)} are missing; give those of 1, 2, 3 and 4.")
        self.input_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_channels[name], hidden_dim, 1), nn.GroupNorm(NUM_GROUPS, hidden_dim))
            for name in ATTENDED
        )
        for convolution, _ in self.input_convs:
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)
        layers = [DeformableEncoderLayer(hidden_dim, dim_feedforward, num_heads) for _ in range(num_layers)]
        self.encoder = MultiScaleEncoder(layers, hidden_dim)
        self.mask_feature = nn.Conv2d(hidden_dim, hidden_dim, kernel_size=1)
        nn.init.kaiming_uniform_(self.mask_feature.weight, a=1)
        nn.init.zeros_(self.mask_feature.bias)
        # Lists with one element: the names of released weights allow for more finer maps.
        self.lateral_convs = nn.ModuleList([ConvNorm(in_channels[FINEST], hidden_dim, kernel_size=1)])
        self.output_convs = nn.ModuleList([ConvNorm(hidden_dim, hidden_dim, kernel_size=3)])

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Decodes a pyramid.

        Args:
            features: Maps "1" to "4" at 1/4, 1/8, 1/16 and 1/32 of the image.

        Returns:
            The mask features (B, C, H/4, W/4) and three maps (B, C, ., .), coarsest first.

        Raises:
            UsageError: If a map is so small that a group of its norm has a single value, which would be normalised to
                0.
        """
        self._require_values_to_normalise(features[ATTENDED[0]])
        levels = [project(features[name]) for project, name in zip(self.input_convs, ATTENDED, strict=True)]
        levels = self.encoder(levels)
        lateral = self.lateral_convs[0](features[FINEST])
        finer = lateral + F.interpolate(levels[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask_feature(F.relu(self.output_convs[0](finer))), levels

    def _require_values_to_normalise(self, coarsest: Tensor) -> None:
        height, width = coarsest.shape[-2:]
        hidden_dim = self.mask_feature.in_channels
        if hidden_dim * height * width == NUM_GROUPS:
            raise UsageError(
                f"A coarsest map of {height} x {width} was given, in which each of {NUM_GROUPS} groups of {hidden_dim} "
                f"channels has one value, too few to normalise; give larger images or hidden_dim={2 * NUM_GROUPS}."
            )
