"""Multi-scale deformable attention in plain PyTorch, differentiable on every device.

Shapes: B batch, N queries, S tokens of all levels, D embed dim, M heads, d = width of one head, L levels, P points.
Sizes of maps are Python (height, width) pairs, which avoids synchronisation with the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.models.utils.fused_deformable_attention import Size, fused_deformable_attention
from dinov3.eval.segmentation.models.utils.size_constants import constant_of_size


@constant_of_size
def cell_centres(sizes: tuple[Size, ...], device: torch.device) -> Tensor:
    """Centres of the cells of one or more maps, row by row, in units of the map.

    Args:
        sizes: (height, width) of each map.
        device: Device of the result.

    Returns:
        (S, 2) in float32, x first, each in (0, 1), where S is the number of cells of all maps. Cached: do not write to
        it.
    """
    centres = []
    for height, width in sizes:
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        centres.append(torch.stack((x[None].expand(height, width), y[:, None].expand(height, width)), dim=-1))
    return torch.cat([grid.flatten(0, 1) for grid in centres])


@constant_of_size
def _widths_and_heights(sizes: tuple[Size, ...], device: torch.device) -> Tensor:
    return torch.tensor([(width, height) for height, width in sizes], device=device, dtype=torch.float32)


def deformable_attention(value: Tensor, sizes: Sequence[Size], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of values sampled at given locations of several maps.

    Sampling is bilinear; values outside a map are 0. The sum is computed in at least float32: coordinates in half
    precision would be off by whole cells.

    Args:
        value: (B, S, M, d), the concatenated maps of all levels, row by row.
        sizes: (height, width) of each of the L levels.
        locations: (B, N, M, L, P, 2), x first; the map spans [0, 1].
        weights: (B, N, M, L, P).

    Returns:
        (B, N, M * d) in the dtype of `value`.

    Source: Zhu et al. 2021, "Deformable DETR", equation 3, arXiv:2010.04159.
    """
    batch, _, heads, _ = value.shape
    dtype = torch.promote_types(value.dtype, torch.float32)
    # Queries innermost and contiguous: grid_sample and the weighted sum then read whole rows, twice as fast on a CPU.
    grids = (2 * locations.to(dtype) - 1).permute(3, 0, 2, 4, 1, 5).contiguous().flatten(1, 2)  # (L, B*M, P, N, 2)
    weights = weights.to(dtype).permute(3, 0, 2, 4, 1).contiguous().flatten(1, 2)  # (L, B*M, P, N)
    maps = value.to(dtype).permute(0, 2, 3, 1).flatten(0, 1)  # (B*M, d, S)

    total: Tensor | None = None
    levels = zip(sizes, maps.split([height * width for height, width in sizes], dim=-1), grids, weights, strict=True)
    for size, tokens, grid, weight in levels:
        sampled = F.grid_sample(tokens.unflatten(-1, size), grid, align_corners=False)  # (B*M, d, P, N)
        summed = (sampled * weight[:, None]).sum(dim=2)
        total = summed if total is None else total + summed
    return total.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2).to(value.dtype)


class MSDeformAttn(nn.Module):
    """Attention of each query to a few learned sampling points around its reference point, on every level.

    Args:
        d_model: Channels D of queries and tokens.
        n_levels: Number L of attended maps.
        n_heads: Number M of heads.
        n_points: Sampling points P per head and level.
        ratio: Width of the values as a fraction of `d_model`.

    Raises:
        ValueError: If the width of the values is not divisible by the number of heads.

    Source: Zhu et al. 2021, "Deformable DETR", section 4.1, arXiv:2010.04159; `ratio` from Chen et al. 2023,
    "Vision Transformer Adapter for Dense Predictions", arXiv:2205.08534.
    """

    def __init__(
        self, d_model: int = 256, n_levels: int = 4, n_heads: int = 8, n_points: int = 4, ratio: float = 1.0
    ) -> None:
        super().__init__()
        width = int(d_model * ratio)
        if width == 0 or width % n_heads:
            raise ValueError(
                f"Values of {d_model} * {ratio} = {width} channels cannot be divided among {n_heads} heads; "
                f"choose a number of heads that divides them."
            )
        self.n_levels, self.n_heads, self.n_points = n_levels, n_heads, n_points
        self.sampling_offsets = nn.Linear(d_model, n_heads * n_levels * n_points * 2)
        self.attention_weights = nn.Linear(d_model, n_heads * n_levels * n_points)
        self.value_proj = nn.Linear(d_model, width)
        self.output_proj = nn.Linear(width, d_model)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialises head m to sample P points 1, 2, ... cells away in its own direction, with equal weights."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        bias = self.sampling_offsets.bias
        angle = torch.arange(self.n_heads, device=bias.device) * (2 * math.pi / self.n_heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)  # (M, 2) on the border of a square
        distance = torch.arange(1, self.n_points + 1, device=bias.device)
        steps = direction[:, None, None] * distance[:, None]  # (M, 1, P, 2)
        bias.copy_(steps.expand(-1, self.n_levels, -1, -1).flatten())

    def forward(self, query: Tensor, reference_points: Tensor, tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Computes the attention.

        Args:
            query: (B, N, D).
            reference_points: (B or 1, N, L or 1, 2), x first, in units of the maps.
            tokens: (B, S, D), the concatenated maps of all levels, row by row.
            sizes: (height, width) of each level.

        Returns:
            (B, N, D).

        Raises:
            ValueError: If the number or the sizes of the levels do not match.
        """
        sizes = tuple((int(height), int(width)) for height, width in sizes)
        if len(sizes) != self.n_levels or sum(height * width for height, width in sizes) != tokens.shape[1]:
            raise ValueError(
                f"{tokens.shape[1]} tokens with levels of sizes {sizes} were given; "
                f"give {self.n_levels} sizes whose cells are as many as the tokens."
            )
        value = self.value_proj(tokens).unflatten(-1, (self.n_heads, -1))
        per_head = (self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*per_head, 2))
        logits = self.attention_weights(query).unflatten(-1, (self.n_heads, -1))
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing() or reference_points.requires_grad):
            return self.output_proj(fused_deformable_attention(value, sizes, reference_points, offsets, logits))
        # Locations and weights in at least float32: half precision resolves 1/256 of a map at best.
        dtype = torch.promote_types(query.dtype, torch.float32)
        weights = logits.to(dtype).softmax(dim=-1).unflatten(-1, per_head[1:])
        cells = _widths_and_heights(sizes, query.device)[:, None]  # (L, 1, 2)
        locations = reference_points[:, :, None, :, None] + offsets.to(dtype) / cells
        return self.output_proj(deformable_attention(value, sizes, locations, weights))
