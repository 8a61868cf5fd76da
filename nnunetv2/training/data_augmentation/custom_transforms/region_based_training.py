"""Converts label maps to (overlapping) regions, for batchgenerators pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from batchgenerators.transforms.abstract_transforms import AbstractTransform


class ConvertSegmentationToRegionsTransform(AbstractTransform):
    """Turns one channel of a segmentation (B, C, *spatial) into a 0/1 channel per region, uint8 (B, R, *spatial).

    Args:
        regions: labels of each region, for example `((1, 2), (2,))`.
        seg_key: key of the segmentation; a batch without it is returned unchanged.
        output_key: key of the result.
        seg_channel: channel with the label map.
    """

    def __init__(
        self,
        regions: Sequence[int | Sequence[int]],
        seg_key: str = "seg",
        output_key: str = "seg",
        seg_channel: int = 0,
    ) -> None:
        self.regions = regions
        self.seg_key = seg_key
        self.output_key = output_key
        self.seg_channel = seg_channel

    def __call__(self, **data_dict: Any) -> dict[str, Any]:
        if data_dict.get(self.seg_key) is None:
            return data_dict
        labels = data_dict[self.seg_key][:, self.seg_channel]
        members = [np.isin(labels, region) for region in self.regions]
        return {**data_dict, self.output_key: np.stack(members, axis=1).astype(np.uint8)}
