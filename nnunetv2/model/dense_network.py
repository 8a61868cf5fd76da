"""A vision transformer with a head that classifies pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nnunetv2.model.depth_fusion import unfold
from nnunetv2.model.head_output import require_logits
from nnunetv2.model.vit_network import ViTNetwork


class DenseViTNetwork(ViTNetwork):
    """A network with a `DenseHead`."""

    def forward(self, x: Tensor) -> Tensor:
        """Segments images or volumes of any size: (B, C, [D,] H, W) -> logits (B, K, [D,] H, W)."""
        slices, depth = self.slices(x)
        logits = self._segmented(slices, depth)
        return logits if depth is None else unfold(logits, depth)

    def _segmented(self, x: Tensor, depth: int | None) -> Tensor:
        image = self.padded(x)
        logits = self.head(self.features(self.enlarged(image), depth))
        require_logits(logits, self.head, self.num_classes)
        logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
        if self.detail is not None:
            logits = logits + self.detail(image, logits, regions=self.regions)
        return logits[..., : x.shape[-2], : x.shape[-1]]
