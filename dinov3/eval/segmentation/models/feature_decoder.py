"""A segmentation model: a feature extractor and a head behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FeatureDecoder(nn.Module):
    """Runs a feature extractor and a head.

    Parameters are named `segmentation_model.0.*` (extractor) and `segmentation_model.1.*` (head), as in the released
    segmentation models.

    Args:
        segmentation_model: Feature extractor and head.
        autocast_dtype: bfloat16 or float16 runs both under autocast; float32 leaves precision to the caller.
    """

    def __init__(self, segmentation_model: nn.ModuleList, autocast_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.segmentation_model = segmentation_model
        self.autocast_dtype = autocast_dtype

    def forward(self, image: Tensor) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        """Takes (B, 3, H, W) and returns the dictionary of the head."""
        extractor, head = self.segmentation_model
        with self._precision(image.device.type):
            return head(extractor(image))

    def predict(self, image: Tensor, rescale_to: Sequence[int]) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        """The same, with the masks resized to `rescale_to` (height, width)."""
        extractor, head = self.segmentation_model
        with self._precision(image.device.type):
            return head.predict(extractor(image), rescale_to=rescale_to)

    def _precision(self, device_type: str) -> contextlib.AbstractContextManager:
        if self.autocast_dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device_type, dtype=self.autocast_dtype)
