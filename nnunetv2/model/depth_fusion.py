"""Volumes as batches of slices: folding, slices that see their neighbours, and adapters that mix along the depth.

Shapes: B volumes, C channels, D slices, E width of a map, h w its rows and columns, r width of an adapter. Folded
tensors hold the slices of a volume one after the other: B * D images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.input_choices import FUSIONS

_EPSILON = 1e-6  # of norms, as in the backbones
_SPREAD = 0.02  # standard deviation of initial weights, as in the backbones
_TAPS = 3  # slices that a convolution sees: one to each side
_HEADS = 4
_FARTHEST = 15  # slices between which attention distinguishes distances
# Slice that each head of the attention looks at first. From equal shares of all slices, attention takes twice the steps
# to find a neighbour, or does not find it.
_FIRST_SEEN = (1, -1, 2, -2)
_PREFERENCE = 4.0  # added to its attention logit: 55 times the share of another slice


def fold(volumes: Tensor) -> Tensor:
    """(B, C, D, H, W) -> (B * D, C, H, W)."""
    return volumes.transpose(1, 2).flatten(0, 1)


def unfold(slices: Tensor, depth: int) -> Tensor:
    """(B * D, K, H, W) -> (B, K, D, H, W)."""
    return slices.unflatten(0, (-1, depth)).transpose(1, 2)


def with_neighbours(volumes: Tensor) -> Tensor:
    """Adds to each slice the one before and the one after it as channels; the first and the last are repeated.

    Args:
        volumes: (B, 1, D, H, W).

    Returns:
        (B, 3, D, H, W): the slices z - 1, z and z + 1.
    """
    before = torch.cat((volumes[:, :, :1], volumes[:, :, :-1]), dim=2)
    after = torch.cat((volumes[:, :, 1:], volumes[:, :, -1:]), dim=2)
    return torch.cat((before, volumes, after), dim=1)


class DepthConvolution(nn.Module):
    """Adds to each slice what a convolution along the depth finds in it and its two neighbours.

    A norm and a projection to r channels precede the convolution, which starts at 0, so that the adapter does not
    change anything at first. There is no activation: with one, and with a third layer, the gradient takes longer to
    pass the adapter.

    Args:
        width: E.
        dim: r.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.down = nn.Linear(width, dim)
        self.conv = nn.Conv1d(dim, width, kernel_size=_TAPS, padding=_TAPS // 2)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, maps: Tensor, depth: int) -> Tensor:
        """(B * D, E, h, w) -> the same."""
        columns = _as_columns(self.down(self.norm(maps.permute(0, 2, 3, 1))), depth)
        return maps + _from_columns(self.conv(columns.transpose(1, 2)).transpose(1, 2), maps, depth)


class DepthAttention(nn.Module):
    """Adds to each slice what attention finds in the same place of all slices of its volume.

    Slices are told apart by their distance alone, as a patch starts anywhere in its volume: each head has a learned
    bias per distance. The last layer starts at 0, so that the adapter does not change anything at first.

    Args:
        width: E.
        dim: r, a multiple of 4.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        if dim % _HEADS:
            raise UsageError(f"model.fusion_dim={dim} must be a multiple of {_HEADS} with model.fusion=attention")
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.qkv = nn.Linear(width, 3 * dim)
        self.proj = nn.Linear(dim, width)
        self.relative_bias = nn.Parameter(torch.zeros(_HEADS, 2 * _FARTHEST + 1))
        nn.init.trunc_normal_(self.qkv.weight, std=_SPREAD)
        for zero in (self.qkv.bias, self.proj.weight, self.proj.bias):
            nn.init.zeros_(zero)
        with torch.no_grad():
            for head, distance in enumerate(_FIRST_SEEN):
                self.relative_bias[head, _FARTHEST + distance] = _PREFERENCE

    def forward(self, maps: Tensor, depth: int) -> Tensor:
        """(B * D, E, h, w) -> the same."""
        columns = _as_columns(self.norm(maps.permute(0, 2, 3, 1)), depth)
        query, key, value = self.qkv(columns).unflatten(-1, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        slices = torch.arange(depth, device=maps.device)
        distances = (slices[None] - slices[:, None]).clamp(-_FARTHEST, _FARTHEST)
        bias = self.relative_bias[:, _FARTHEST + distances].to(query.dtype)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        return maps + _from_columns(self.proj(found.transpose(1, 2).flatten(2)), maps, depth)


def _as_columns(tokens: Tensor, depth: int) -> Tensor:
    """(B * D, h, w, E) -> (B * h * w, D, E)."""
    return tokens.unflatten(0, (-1, depth)).permute(0, 2, 3, 1, 4).flatten(0, 2)


def _from_columns(columns: Tensor, maps: Tensor, depth: int) -> Tensor:
    """(B * h * w, D, E) -> (B * D, E, h, w), the shape of `maps`."""
    height, width = maps.shape[-2:]
    return columns.unflatten(0, (-1, height, width)).permute(0, 3, 4, 1, 2).flatten(0, 1)


_ADAPTERS = {"conv": DepthConvolution, "attention": DepthAttention}


class DepthFusion(nn.Module):
    """Adapters for each of several maps of folded slices.

    Args:
        kind: `conv` or `attention`.
        widths: E of each map.
        dim: r.
        num_layers: adapters of a map, one after the other; a slice sees as many neighbours to each side with `conv`.

    Raises:
        UsageError: the kind is unknown, or does not fit r.
    """

    def __init__(self, kind: str, widths: Sequence[int], dim: int, num_layers: int) -> None:
        super().__init__()
        if kind not in _ADAPTERS:
            raise UsageError(f"model.fusion={kind!r} is not known; choose one of {', '.join(FUSIONS)}")
        adapter = _ADAPTERS[kind]
        self.maps = nn.ModuleList(nn.ModuleList(adapter(width, dim) for _ in range(num_layers)) for width in widths)

    def forward(self, maps: Sequence[Tensor], depth: int) -> list[Tensor]:
        """One (B * D, E, h, w) per map -> the same."""
        return [self.fused(number, one, depth) for number, one in enumerate(maps)]

    def fused(self, number: int, one: Tensor, depth: int) -> Tensor:
        """Mixes a single map, of this number."""
        for adapter in self.maps[number]:
            one = adapter(one, depth)
        return one
