"""A vision transformer with a head that classifies pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nnunetv2.model.head_output import require_logits
from nnunetv2.model.vit_network import ViTNetwork, padded_size


class DenseViTNetwork(ViTNetwork):
    """A network with a `DenseHead`."""

    def forward(self, x: Tensor) -> Tensor:
        """Segments images of any size: (B, C, H, W) -> logits (B, K, H, W)."""
        size = padded_size(x.shape[-2:], self.image_multiple)
        logits = self.head(self.features(self.adapted(x)))
        require_logits(logits, self.head, self.num_classes)
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits[..., : x.shape[-2], : x.shape[-1]]
