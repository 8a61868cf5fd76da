"""A vision transformer with a head that proposes classified masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov3.eval.segmentation.models.heads.semantic_scores import semantic_scores
from nnunetv2.model.depth_fusion import unfold
from nnunetv2.model.head_output import require_queries
from nnunetv2.model.vit_network import IMAGE, ViTNetwork, padded_size
from nnunetv2.model.volume_queries import masks_of_slices

SCORE_EPSILON = 1e-6  # its logarithm, -13.8, and sums of a few of them are representable in half precision


class QueryNetwork(ViTNetwork):
    """A network with a `QueryHead`.

    Prediction runs in bf16, as training does: products of queries and mask features may exceed 65504, the float16
    maximum.
    """

    def forward(self, x: Tensor, return_queries: bool = False) -> Tensor | dict[str, Any]:
        """Segments images or volumes of any size.

        Args:
            x: (B, C, [D,] H, W).
            return_queries: return the input of the loss instead of dense logits.

        Returns:
            Dense logits (B, K, [D,] H, W) in float32, see `dense_logits`; with `return_queries`, the head's output for
            the padded image, see `QueryHead`.
        """
        slices, depth = self.slices(x)
        image = self.padded(slices)
        queries = self.head(replace(self.features(self.enlarged(image), depth), needs_aux=return_queries))
        require_queries(queries, self.head, self.num_classes, is_volume=depth is not None)
        if self.detail is not None:
            queries = {**queries, "pred_masks": self._detailed_masks(image, queries, depth)}
        if return_queries:
            return queries
        return dense_logits(queries, x.shape[-2:], self.image_multiple, regions=self.regions)

    def _detailed_masks(self, image: Tensor, queries: Mapping[str, Any], depth: int | None) -> Tensor:
        """Adds to each mask the details of the classes of its query: (B, Q, [D,] H', W') of the padded image."""
        recognised = masks_of_slices(_class_logits(queries, queries["pred_masks"], self.regions))
        details = self.detail(image, recognised, regions=self.regions)
        if depth is not None:
            details = unfold(details, depth)
        # Detached: which class a query has is not to be learnt from the contours of its mask.
        classes = queries["pred_logits"].detach().softmax(dim=-1)[..., :-1].to(details.dtype)
        masks = _resized_masks(queries, image.shape[-2:])
        return masks + torch.einsum("bqk,bk...->bq...", classes, details)


def dense_logits(queries: Mapping[str, Any], size: Sequence[int], image_multiple: int, *, regions: bool) -> Tensor:
    """Converts queries to one logit per class and pixel, so that windows, mirrors and folds can be averaged.

    The score S of a class is the sum over the queries of class probability times mask probability. Labels: log(S),
    whose softmax is S divided by its sum. Regions: the logit of S, whose sigmoid is S, with S cut off below 1.

    Args:
        queries: `pred_logits` (B, Q, K + 1) and `pred_masks` (B, Q, [D,] h, w) of the padded image.
        size: (H, W) of the image before padding.
        image_multiple: the multiple that the image was padded to.
        regions: independent regions instead of exclusive labels.

    Returns:
        (B, K, [D,] H, W), at least float32, finite, between -14 and 14.
    """
    masks = queries["pred_masks"]
    if masks.ndim == IMAGE:
        resized = _resized_masks(queries, padded_size(size, image_multiple))
        return _class_logits(queries, resized[..., : size[0], : size[1]], regions)
    # Slice by slice, as the masks of all queries at full size take gigabytes for a volume.
    of_slices = [{**queries, "pred_masks": of_slice} for of_slice in masks.unbind(2)]
    return torch.stack([dense_logits(one, size, image_multiple, regions=regions) for one in of_slices], dim=2)


def _resized_masks(queries: Mapping[str, Any], size: Sequence[int]) -> Tensor:
    """The masks at a size (H, W), in at least float32."""
    masks = queries["pred_masks"]
    slices = masks_of_slices(masks).to(torch.promote_types(masks.dtype, torch.float32))
    resized = F.interpolate(slices, size=size, mode="bilinear", align_corners=False)
    return resized if masks.ndim == IMAGE else unfold(resized, masks.shape[2])


def _class_logits(queries: Mapping[str, Any], masks: Tensor, regions: bool) -> Tensor:
    scores = semantic_scores(queries["pred_logits"], masks)
    if regions:
        return torch.logit(scores, eps=SCORE_EPSILON)
    return torch.log(scores + SCORE_EPSILON)
