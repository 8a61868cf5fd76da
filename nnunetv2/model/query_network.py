"""A vision transformer whose head proposes classified masks, as a network for nnU-Net: dense class logits out."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov3.eval.segmentation.models.heads.semantic_scores import semantic_scores
from nnunetv2.model.vit_network import ViTNetwork, padded_size

SCORE_EPSILON = 1e-6  # its logarithm, -13.8, and the sum of a few of them fit half precision


class QueryNetwork(ViTNetwork):
    """The forward pass that networks with queries share; subclasses define `queries`.

    They predict in bf16 as they are trained: products of queries and features of masks may pass 65504, the largest
    float16.
    """

    @abc.abstractmethod
    def queries(self, image: Tensor) -> dict[str, Any]:
        """What the loss takes.

        Args:
            image: (B, C', H, W) with H and W multiples of `size_multiple`.

        Returns:
            `pred_logits` (B, Q, K + 1), `pred_masks` (B, Q, h, w) and `aux_outputs`, a list of such dictionaries.
        """

    def set_training_progress(self, progress: float) -> None:
        """Tells how much of the training is done, 0 to 1, to networks that change with it."""

    def forward(self, x: Tensor, return_queries: bool = False) -> Tensor | dict[str, Any]:
        """Segments images of any size.

        Args:
            x: (B, C, H, W).
            return_queries: return what the loss takes instead of dense logits.

        Returns:
            Dense logits (B, K, H, W) in float32, see `dense_logits`. Or, with `return_queries`, the dictionary of
            `queries` for the padded image.
        """
        queries = self.queries(self.adapted(x))
        if return_queries:
            return queries
        return dense_logits(queries, x.shape[-2:], self.image_multiple, regions=self.regions)


def dense_logits(queries: Mapping[str, Any], size: Sequence[int], image_multiple: int, *, regions: bool) -> Tensor:
    """Turns queries into one logit per class and pixel, to be averaged over windows, mirrors and folds.

    The score S of a class is the sum over the queries of class probability times mask probability. Labels: log(S),
    whose softmax is S divided by its sum. Regions: the logit of S, whose sigmoid is S, with S cut off below 1.

    Args:
        queries: `pred_logits` (B, Q, K + 1) and `pred_masks` (B, Q, h, w) of the padded image.
        size: (H, W) of the image before padding.
        image_multiple: what it was padded to.
        regions: independent regions instead of exclusive labels.

    Returns:
        (B, K, H, W), at least float32, finite, between -14 and 14.
    """
    masks = queries["pred_masks"]
    masks = masks.to(torch.promote_types(masks.dtype, torch.float32))
    masks = F.interpolate(masks, size=padded_size(size, image_multiple), mode="bilinear", align_corners=False)
    scores = semantic_scores(queries["pred_logits"], masks[..., : size[0], : size[1]])
    if regions:
        return torch.logit(scores, eps=SCORE_EPSILON)
    return torch.log(scores + SCORE_EPSILON)
