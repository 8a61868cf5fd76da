"""Converts queries to one score per class and pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def semantic_scores(pred_logits: Tensor, pred_masks: Tensor) -> Tensor:
    """Sums, over the queries, class probability times mask probability.

    The scores of a pixel are not probabilities: their sum can be below or above 1. They are computed in at least
    float32, also under autocast, because sums over many queries lose small classes in half precision.

    Args:
        pred_logits: (B, Q, K + 1) with "no object" as last class.
        pred_masks: (B, Q, h, w) or (B, Q, D, h, w) logits.

    Returns:
        (B, K, h, w) or (B, K, D, h, w), each in [0, Q].

    Source: Cheng et al. 2021, "Per-Pixel Classification is Not All You Need for Semantic Segmentation", section 3.4,
    arXiv:2107.06278.
    """
    with torch.autocast(pred_logits.device.type, enabled=False):
        dtype = torch.promote_types(pred_logits.dtype, torch.float32)
        classes = pred_logits.to(dtype).softmax(dim=-1)[..., :-1]  # (B, Q, K)
        masks = pred_masks.to(dtype).sigmoid()
        return torch.einsum("bqk,bq...->bk...", classes, masks)
