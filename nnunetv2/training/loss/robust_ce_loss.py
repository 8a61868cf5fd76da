"""Cross-entropy losses that take nnU-Net's targets: any integer or float dtype, with or without a channel axis."""

from __future__ import annotations

import torch
from torch import nn


class RobustCrossEntropyLoss(nn.CrossEntropyLoss):
    """`nn.CrossEntropyLoss` of logits against a label map of shape (B, *spatial) or (B, 1, *spatial)."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().forward(input, _label_map(target, input.ndim))


class TopKLoss(RobustCrossEntropyLoss):
    """Mean cross-entropy of the hardest `k` percent of the voxels (at least one voxel).

    Args:
        weight: one factor per class, (C,).
        ignore_index: label whose voxels contribute 0.
        k: percentage in (0, 100].
        label_smoothing: in [0, 1].
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        ignore_index: int = -100,
        k: float = 10,
        label_smoothing: float = 0,
    ) -> None:
        super().__init__(weight, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing)
        self.k = k

    def forward(self, inp: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        per_voxel = super().forward(inp, target).flatten()
        num_hardest = max(1, int(per_voxel.numel() * self.k / 100))
        return per_voxel.topk(num_hardest, sorted=False).values.mean()


def _label_map(target: torch.Tensor, num_logit_axes: int) -> torch.Tensor:
    if target.ndim == num_logit_axes:
        if target.shape[1] != 1:
            raise ValueError(f"a label map has one channel, the target has shape {tuple(target.shape)}")
        target = target[:, 0]
    return target.long()
