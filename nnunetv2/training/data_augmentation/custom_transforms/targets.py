"""Labels removed from targets and targets at several resolutions, without detours through masks and float32."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from batchgeneratorsv2.transforms.utils import deep_supervision_downsampling, remove_label

from dinov3.utils.host_copies import to_device


class RemoveLabelTransform(remove_label.RemoveLabelTransform):
    """As its base class: replaces a label by another in some or all channels, in place."""

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        channels = self.segmentation_channels
        for labels in segmentation if channels is None else (segmentation[channel] for channel in channels):
            # Sums are several times faster than masks.
            labels.add_(labels.clone().eq_(self.label_value), alpha=self.set_to - self.label_value)
        return segmentation


class DownsampleSegForDSTransform(deep_supervision_downsampling.DownsampleSegForDSTransform):
    """As its base class: one target per supervised resolution, each voxel taken from the nearest of the original."""

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> list[torch.Tensor]:
        return [downsampled(segmentation, scale) for scale in self.ds_scales]


def downsampled(labels: torch.Tensor, scale: float | Sequence[float], num_leading: int = 1) -> torch.Tensor:
    """Takes each voxel from the nearest of the original.

    Args:
        labels: (..., *spatial), on any device; returned as they are if no size changes.
        scale: new size relative to the original, one factor or one per spatial axis.
        num_leading: axes before the spatial ones.
    """
    sizes = labels.shape[num_leading:]
    factors = scale if isinstance(scale, (tuple, list)) else [scale] * len(sizes)
    target = labels
    for axis, (size, factor) in enumerate(zip(sizes, factors, strict=True), start=num_leading):
        target = _select(target, axis, round(size * factor))
    return target if target is labels else target.contiguous()


def _select(array: torch.Tensor, axis: int, new_size: int) -> torch.Tensor:
    size = array.shape[axis]
    if new_size == size:
        return array
    voxels = _as_slice(nearest_voxels(size, new_size))
    if isinstance(voxels, slice):
        return array[(slice(None),) * axis + (voxels,)]
    return array.index_select(axis, to_device(torch.tensor(voxels), array.device))


@lru_cache
def nearest_voxels(size: int, new_size: int) -> tuple[int, ...]:
    """Voxels that `interpolate(mode="nearest-exact")` takes along an axis, which it computes in float32."""
    positions = (torch.arange(new_size, dtype=torch.float32) + 0.5) * torch.tensor(size / new_size)
    return tuple(positions.floor().int().clamp_(max=size - 1).tolist())


@lru_cache
def _as_slice(voxels: tuple[int, ...]) -> tuple[int, ...] | slice:
    """The same voxels as a slice if they are equally far apart."""
    step = voxels[1] - voxels[0] if len(voxels) > 1 else 1
    if step > 0 and list(voxels) == list(range(voxels[0], voxels[-1] + 1, step)):
        return slice(voxels[0], voxels[-1] + 1, step)
    return voxels
