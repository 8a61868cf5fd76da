"""Targets at several resolutions, for batchgenerators pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from batchgenerators.augmentations.utils import resize_segmentation
from batchgenerators.transforms.abstract_transforms import AbstractTransform


class DownsampleSegForDSTransform2(AbstractTransform):
    """Replaces a segmentation (B, C, *spatial) by a list of resized ones.

    Args:
        ds_scales: size of each entry relative to the original, one factor or one per axis of `axes`.
        order: of the interpolation; 0 is nearest neighbour.
        input_key: key of the segmentation.
        output_key: key of the list.
        axes: axes that are resized; `None` are all spatial ones.
    """

    def __init__(
        self,
        ds_scales: Sequence[float | Sequence[float]],
        order: int = 0,
        input_key: str = "seg",
        output_key: str = "seg",
        axes: Sequence[int] | None = None,
    ) -> None:
        self.ds_scales = ds_scales
        self.order = order
        self.input_key = input_key
        self.output_key = output_key
        self.axes = axes

    def __call__(self, **data_dict: Any) -> dict[str, Any]:
        segmentation = data_dict[self.input_key]
        axes = range(2, segmentation.ndim) if self.axes is None else self.axes
        return {**data_dict, self.output_key: [self._resize(segmentation, axes, scale) for scale in self.ds_scales]}

    def _resize(self, segmentation: np.ndarray, axes: Sequence[int], scale: float | Sequence[float]) -> np.ndarray:
        factors = scale if isinstance(scale, (tuple, list)) else [scale] * len(axes)
        if len(factors) != len(axes):
            raise ValueError(f"a scale needs a factor for each of the {len(axes)} axes, got {list(factors)}")
        if all(factor == 1 for factor in factors):
            return segmentation
        shape = np.array(segmentation.shape, dtype=float)
        shape[list(axes)] *= factors
        shape = np.round(shape).astype(int)
        resized = np.zeros(shape, dtype=segmentation.dtype)
        for index in np.ndindex(*segmentation.shape[:2]):
            resized[index] = resize_segmentation(segmentation[index], shape[2:], self.order)
        return resized
