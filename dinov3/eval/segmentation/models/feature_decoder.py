"""A segmentation model: a feature extractor followed by a head."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Outputs = Tensor | dict[str, Tensor | list[dict[str, Tensor]]]
"""Dense logits of a linear head, or the dictionary of a Mask2Former head."""


class FeatureDecoder(nn.Module):
    """Runs a feature extractor and a head.

    Parameters are named `segmentation_model.0.*` (extractor) and `segmentation_model.1.*` (head), as in the released
    segmentation models.

    Args:
        segmentation_model: Feature extractor, with `backbone` and `size_multiple`, and head, with `predict`.
        autocast_dtype: bfloat16 or float16 runs both under autocast; float32: the caller controls precision.
    """

    def __init__(self, segmentation_model: nn.ModuleList, autocast_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.segmentation_model = segmentation_model
        self.autocast_dtype = autocast_dtype

    @property
    def backbone(self) -> nn.Module:
        """The vision transformer inside the feature extractor."""
        return self.segmentation_model[0].backbone

    @property
    def size_multiple(self) -> int:
        """Required divisor of height and width of an image."""
        return self.segmentation_model[0].size_multiple

    def forward(self, image: Tensor) -> Outputs:
        """Takes (B, C, H, W) and returns the head's output."""
        extractor, head = self.segmentation_model
        with self._precision(image.device.type):
            return head(extractor(image))

    def predict(self, image: Tensor, rescale_to: Sequence[int] = (512, 512)) -> Outputs:
        """Like `forward`, with masks or dense logits resized (bilinear) to `rescale_to` (height, width)."""
        extractor, head = self.segmentation_model
        with self._precision(image.device.type):
            return head.predict(extractor(image), rescale_to=rescale_to)

    def _precision(self, device_type: str) -> contextlib.AbstractContextManager:
        if self.autocast_dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device_type, dtype=self.autocast_dtype)
