"""A vision transformer with a head that classifies pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nnunetv2.model.head_output import require_logits
from nnunetv2.model.vit_network import ViTNetwork


class DenseViTNetwork(ViTNetwork):
    """A network with a `DenseHead`."""

    def forward(self, x: Tensor) -> Tensor:
        """Segments images of any size: (B, C, H, W) -> logits (B, K, H, W)."""
        image = self.padded(x)
        logits = self.head(self.features(self.enlarged(image)))
        require_logits(logits, self.head, self.num_classes)
        logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
        if self.detail is not None:
            logits = logits + self.detail(image, logits, regions=self.regions)
        return logits[..., : x.shape[-2], : x.shape[-1]]
