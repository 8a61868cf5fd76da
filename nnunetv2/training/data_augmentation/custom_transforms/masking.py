"""Image channels set to a constant outside a mask, for batchgenerators pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchgenerators.transforms.abstract_transforms import AbstractTransform


class MaskTransform(AbstractTransform):
    """Overwrites image channels in place where the segmentation is negative.

    Args:
        apply_to_channels: image channels to mask.
        mask_idx_in_seg: channel of the segmentation; below 0 is outside, label 0 is inside.
        set_outside_to: value given to voxels outside.
        data_key: key of the image (B, C, *spatial).
        seg_key: key of the segmentation (B, C, *spatial).
    """

    def __init__(
        self,
        apply_to_channels: Sequence[int],
        mask_idx_in_seg: int = 0,
        set_outside_to: float = 0,
        data_key: str = "data",
        seg_key: str = "seg",
    ) -> None:
        self.apply_to_channels = apply_to_channels
        self.mask_idx_in_seg = mask_idx_in_seg
        self.set_outside_to = set_outside_to
        self.data_key = data_key
        self.seg_key = seg_key

    def __call__(self, **data_dict: Any) -> dict[str, Any]:
        outside = data_dict[self.seg_key][:, self.mask_idx_in_seg] < 0
        for channel in self.apply_to_channels:
            data_dict[self.data_key][:, channel][outside] = self.set_outside_to
        return data_dict
