"""Deformable attention as one function for autograd, with half of the kernels that its formula takes step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dinov3.eval.segmentation.models.utils.size_constants import constant_of_size

Size = tuple[int, int]
_BILINEAR, _ZEROS = 0, 0  # codes of grid_sampler's interpolation and padding


def fused_deformable_attention(
    value: Tensor, sizes: tuple[Size, ...], reference_points: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """Weighted sum of values sampled at learned offsets from reference points.

    Computed in at least float32, as by `deformable_attention`: B batch, N queries, M heads, d = width of one head, S
    tokens of L levels, P points.

    Args:
        value: (B, S, M, d), the concatenated maps of all levels, row by row.
        sizes: (height, width) of each level.
        reference_points: (B or 1, N, L or 1, 2), x first, in units of the maps; constant.
        offsets: (B, N, M, L, P, 2), x first, in cells.
        logits: (B, N, M, L * P), of the weights.

    Returns:
        (B, N, M * d) in the dtype of `value`.
    """
    with torch.autocast(value.device.type, enabled=False):
        return _DeformableAttention.apply(value, offsets, logits, reference_points, sizes)


@constant_of_size
def _cells(sizes: tuple[Size, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sides of a cell in units of half a map, (L, 1, 1, 1, 1, 2), x first."""
    sides = [(2 / width, 2 / height) for height, width in sizes]
    return torch.tensor(sides, device=device, dtype=dtype)[:, None, None, None, None]


class _DeformableAttention(torch.autograd.Function):
    """Tensors are ordered (B, M, ..., N): queries innermost, so that sampling and sums read whole rows."""

    @staticmethod
    def forward(  # noqa: PLR0913 - the operands
        ctx: Any, value: Tensor, offsets: Tensor, logits: Tensor, reference_points: Tensor, sizes: tuple[Size, ...]
    ) -> Tensor:
        dtype = torch.promote_types(value.dtype, torch.float32)
        batch, _, heads, _ = value.shape
        maps = _copy(value.permute(0, 2, 3, 1), dtype).flatten(0, 1)  # (B*M, d, S)
        weights = _copy(logits.permute(0, 2, 3, 1), dtype).softmax(dim=2).flatten(0, 1)  # (B*M, L*P, N)
        centres = torch.rsub(reference_points, -1, alpha=-2).to(dtype)  # from -1 to 1, as grid_sampler counts
        grids = torch.empty_like(_ordered(offsets), dtype=dtype, memory_format=torch.contiguous_format)
        cells = _cells(sizes, value.device, dtype)
        torch.addcmul(centres.permute(2, 0, 1, 3)[:, :, None, None], _ordered(offsets), cells, out=grids)
        grids = grids.flatten(1, 2)  # (L, B*M, P, N, 2)
        levels = zip(_levels(maps, sizes), grids, strict=True)
        samples = [torch.grid_sampler_2d(level, grid, _BILINEAR, _ZEROS, False) for level, grid in levels]
        sampled = _joined(samples, 2)  # (B*M, d, L*P, N)
        summed = (sampled * weights[:, None]).sum(dim=2).unflatten(0, (batch, heads))
        ctx.save_for_backward(maps, grids, weights, sampled)
        ctx.sizes, ctx.batch, ctx.dtypes = sizes, batch, (value.dtype, offsets.dtype, logits.dtype)
        return _copy(summed.permute(0, 3, 1, 2), value.dtype).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, grids, weights, sampled = ctx.saved_tensors
        (of_value, of_offsets, of_logits), by_image = ctx.dtypes, (ctx.batch, -1)
        heads = len(maps) // ctx.batch
        gradient = _copy(gradient.unflatten(2, (heads, -1)).permute(0, 2, 3, 1), maps.dtype).flatten(0, 1)[:, :, None]
        through_weights = (sampled * gradient).sum(dim=1)
        through_logits = torch._softmax_backward_data(through_weights, weights, 1, weights.dtype)
        through_samples = (gradient * weights[:, None]).chunk(len(grids), dim=2)
        needed = list(ctx.needs_input_grad[:2])
        levels = zip(through_samples, _levels(maps, ctx.sizes), grids, strict=True)
        pairs = [
            torch.ops.aten.grid_sampler_2d_backward(samples, level, grid, _BILINEAR, _ZEROS, False, needed)
            for samples, level, grid in levels
        ]
        through_maps, through_grids = zip(*pairs, strict=True)
        through_value = through_offsets = None
        if needed[0]:
            together = _joined([level.flatten(2) for level in through_maps], 2).unflatten(0, by_image)
            through_value = _copy(together.permute(0, 3, 1, 2), of_value)
        if needed[1]:
            together = _joined([grid[None] for grid in through_grids], 0).unflatten(1, by_image)  # (L, B, M, P, N, 2)
            through_offsets = together.new_empty(_original(together).shape, dtype=of_offsets)
            cells = _cells(ctx.sizes, maps.device, maps.dtype)
            torch.mul(together, cells, out=_ordered(through_offsets))
        through_logits = _copy(through_logits.unflatten(0, by_image).permute(0, 3, 1, 2), of_logits)
        return through_value, through_offsets, through_logits, None, None


def _copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Copies to contiguous memory and casts, by one kernel."""
    return torch.empty(tensor.shape, dtype=dtype, device=tensor.device).copy_(tensor)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenates; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _ordered(offsets: Tensor) -> Tensor:
    """(B, N, M, L, P, 2) -> (L, B, M, P, N, 2)."""
    return offsets.permute(3, 0, 2, 4, 1, 5)


def _original(offsets: Tensor) -> Tensor:
    """(L, B, M, P, N, 2) -> (B, N, M, L, P, 2)."""
    return offsets.permute(1, 4, 2, 0, 3, 5)


def _levels(maps: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """(B*M, d, S) -> (B*M, d, height, width) of each level."""
    parts = maps.split([height * width for height, width in sizes], dim=-1)
    return [part.unflatten(-1, size) for part, size in zip(parts, sizes, strict=True)]
