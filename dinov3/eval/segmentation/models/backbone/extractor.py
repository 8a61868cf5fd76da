"""Extractors: tokens of the adapter attend to the features of the vision transformer.

Shapes: B batch, N = HW/64 + HW/256 + HW/1024 tokens of the adapter, S tokens of the transformer, D embed dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dinov3.eval.segmentation.models.utils.ms_deform_attn import MSDeformAttn, Size
from dinov3.layers.drop_path import DropPath

NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class ExtractorConfig:
    """Settings that all extractors of an adapter share."""

    dim: int
    """Channels D."""
    num_heads: int = 16
    """Heads of the deformable attention."""
    n_points: int = 4
    """Sampling points per head."""
    with_cffn: bool = True
    """A convolutional feed-forward network follows the attention."""
    cffn_ratio: float = 0.25
    """Hidden width of that network as a fraction of D."""
    drop_path: float = 0.0
    """Probability in [0, 1) that a sample skips that network while training."""
    deform_ratio: float = 0.5
    """Width of the attention's values as a fraction of D."""
    with_cp: bool = False
    """Recompute activations in the backward pass instead of storing them."""


class DepthwiseConv(nn.Module):
    """A 3x3 depth-wise convolution, applied to each of several concatenated maps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Takes and returns (B, N, C); `sizes` are the (height, width) of the maps."""
        maps = tokens.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)  # (B, C, cells) each
        filtered = [self.dwconv(cells.unflatten(-1, size)).flatten(2) for cells, size in zip(maps, sizes, strict=True)]
        # Contiguous tokens, which the next linear layer would copy otherwise.
        return torch.cat([cells.transpose(1, 2) for cells in filtered], dim=1)


class ConvFFN(nn.Module):
    """Feed-forward network with a depth-wise convolution, which lets neighbouring tokens exchange information."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = DepthwiseConv(hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Takes and returns (B, N, D); `sizes` are the (height, width) of the maps."""
        return self.fc2(self.act(self.dwconv(self.fc1(tokens), sizes)))


class Extractor(nn.Module):
    """Deformable cross-attention to the transformer's feature map, then a convolutional feed-forward network.

    Source: Chen et al. 2023, "Vision Transformer Adapter for Dense Predictions", equations 2 and 3, arXiv:2205.08534.
    """

    def __init__(self, config: ExtractorConfig) -> None:
        super().__init__()
        self.with_cp = config.with_cp
        self.query_norm = nn.LayerNorm(config.dim, eps=NORM_EPSILON)
        self.feat_norm = nn.LayerNorm(config.dim, eps=NORM_EPSILON)
        self.attn = MSDeformAttn(
            config.dim, n_levels=1, n_heads=config.num_heads, n_points=config.n_points, ratio=config.deform_ratio
        )
        self.ffn: ConvFFN | None = None
        if config.with_cffn:
            self.ffn = ConvFFN(config.dim, int(config.dim * config.cffn_ratio))
            self.ffn_norm = nn.LayerNorm(config.dim, eps=NORM_EPSILON)
            self.drop_path = DropPath(config.drop_path)

    def forward(
        self, query: Tensor, reference_points: Tensor, features: Tensor, feature_size: Size, query_sizes: Sequence[Size]
    ) -> Tensor:
        """Updates the tokens of the adapter.

        Args:
            query: (B, N, D), concatenated maps of `query_sizes`.
            reference_points: (1, N, 1, 2), centres of the query cells in units of the map, x first.
            features: (B, S, D), tokens of the transformer, row by row.
            feature_size: (height, width) of the transformer's map.
            query_sizes: (height, width) of the maps in `query`.

        Returns:
            (B, N, D).
        """
        arguments = (query, reference_points, features, feature_size, query_sizes)
        if self.with_cp and query.requires_grad:
            return checkpoint(self._extract, *arguments, use_reentrant=False)
        return self._extract(*arguments)

    def _extract(
        self, query: Tensor, reference_points: Tensor, features: Tensor, feature_size: Size, query_sizes: Sequence[Size]
    ) -> Tensor:
        query = query + self.attn(
            self.query_norm(query), reference_points, self.feat_norm(features), sizes=(feature_size,)
        )
        if self.ffn is not None:
            query = query + self.drop_path(self.ffn(self.ffn_norm(query), query_sizes))
        return query


class InteractionBlock(nn.Module):
    """The extractors that read one layer of the transformer.

    Args:
        config: Settings of the extractors.
        num_extra_extractors: Number of extractors after the first.
    """

    def __init__(self, config: ExtractorConfig, num_extra_extractors: int = 0) -> None:
        super().__init__()
        self.extractor = Extractor(config)
        self.extra_extractors = nn.ModuleList(Extractor(config) for _ in range(num_extra_extractors))

    def forward(
        self, query: Tensor, reference_points: Tensor, features: Tensor, feature_size: Size, query_sizes: Sequence[Size]
    ) -> Tensor:
        """Takes the arguments of `Extractor.forward` and returns (B, N, D)."""
        for extractor in (self.extractor, *self.extra_extractors):
            query = extractor(query, reference_points, features, feature_size, query_sizes)
        return query
