"""Labels removed from targets and targets at several resolutions, without detours through masks and float32."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from batchgeneratorsv2.transforms.utils import deep_supervision_downsampling, remove_label


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
        sizes = segmentation.shape[1:]
        targets = []
        for scale in self.ds_scales:
            factors = scale if isinstance(scale, (tuple, list)) else [scale] * len(sizes)
            target = segmentation
            for axis, (size, factor) in enumerate(zip(sizes, factors, strict=True), start=1):
                target = _select(target, axis, _nearest_voxels(size, round(size * factor)))
            targets.append(target if target is segmentation else target.contiguous())
        return targets


def _select(array: torch.Tensor, axis: int, voxels: Sequence[int]) -> torch.Tensor:
    if len(voxels) == array.shape[axis]:
        return array
    step = voxels[1] - voxels[0] if len(voxels) > 1 else 1
    if all(after - before == step for before, after in zip(voxels, voxels[1:], strict=False)):
        return array[(slice(None),) * axis + (slice(voxels[0], voxels[-1] + 1, step),)]
    return array.index_select(axis, torch.tensor(voxels, device=array.device))


@lru_cache
def _nearest_voxels(size: int, new_size: int) -> tuple[int, ...]:
    """Voxels that `interpolate(mode="nearest-exact")` takes along an axis, which it computes in float32."""
    positions = (torch.arange(new_size, dtype=torch.float32) + 0.5) * torch.tensor(size / new_size)
    return tuple(positions.floor().int().clamp_(max=size - 1).tolist())
