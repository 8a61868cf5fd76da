"""Mask2Former on a vision transformer, as a network for nnU-Net: dense class logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov3.eval.segmentation.models import build_segmentation_decoder
from dinov3.eval.segmentation.semantic_inference import semantic_scores
from nnunetv2.model.backbones import TimmBackbone
from nnunetv2.model.vit_network import ViTNetwork, pad_to_multiple

SIZE_MULTIPLE = 32  # stride of the coarsest feature map
MASK_STRIDE = 4
SCORE_EPSILON = 1e-6  # its logarithm, -13.8, and the sum of a few of them fit half precision


class M2FSegmentationModel(ViTNetwork):
    """ViT backbone, adapter pyramid, pixel decoder and mask transformer.

    Args:
        backbone_out_layers: name of a choice of four blocks.
        hidden_dim: channels of the head.
        num_heads: attention heads of the head.
        dim_feedforward: hidden width of the head's feed-forward networks.
        num_queries: masks proposed per image.
        num_encoder_layers: layers of the pixel decoder.
        num_decoder_layers: layers of the mask transformer.
        drop_path_rate: probability in [0, 1) that a sample skips a feed-forward network of the adapter in training.
        gradient_checkpointing: recompute the adapter in the backward pass, which saves memory and costs time.

    The other arguments are those of `ViTNetwork`.
    """

    # bf16 in prediction too: products of queries and features of masks may pass 65504, the largest float16.

    @property
    def backbone(self) -> TimmBackbone:
        return self.decoder.segmentation_model[0].backbone

    def build_head(
        self,
        vit: TimmBackbone,
        num_classes: int,
        *,
        backbone_out_layers: str = "FOUR_EVEN_INTERVALS",
        hidden_dim: int = 256,
        num_heads: int = 8,
        dim_feedforward: int = 1024,
        num_queries: int = 100,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 9,
        drop_path_rate: float = 0.3,
        gradient_checkpointing: bool = True,
    ) -> None:
        if num_queries < num_classes:
            raise ValueError(f"model.num_queries={num_queries} is below the number of classes, {num_classes}")
        self.decoder = build_segmentation_decoder(
            vit,
            backbone_out_layers,
            hidden_dim=hidden_dim,
            num_classes=num_classes,
            freeze_backbone=False,
            in_channels=self.input.out_channels,
            num_heads=num_heads,
            dim_feedforward=dim_feedforward,
            num_queries=num_queries,
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            drop_path_rate=drop_path_rate,
            with_cp=gradient_checkpointing,
        )

    def forward(self, x: Tensor, return_queries: bool = False) -> Tensor | dict[str, Any]:
        """Segments images of any size.

        Args:
            x: (B, C, H, W).
            return_queries: return what the loss takes instead of dense logits.

        Returns:
            Dense logits (B, K, H, W) in float32, see `dense_logits`. Or, with `return_queries`, the mask transformer's
            `pred_logits` (B, Q, K + 1), `pred_masks` (B, Q, H'/4, W'/4) and `aux_outputs`, a list of such dictionaries,
            where H' and W' are H and W padded below and on the right to multiples of 32.
        """
        queries = self.decoder(pad_to_multiple(self.input(x), SIZE_MULTIPLE))
        return queries if return_queries else dense_logits(queries, x.shape[-2:], regions=self.regions)


def dense_logits(queries: Mapping[str, Any], size: Sequence[int], *, regions: bool) -> Tensor:
    """Turns queries into one logit per class and pixel, to be averaged over windows, mirrors and folds.

    The score S of a class is the sum over the queries of class probability times mask probability. Labels: log(S),
    whose softmax is S divided by its sum. Regions: the logit of S, whose sigmoid is S, with S cut off below 1.

    Args:
        queries: `pred_logits` and `pred_masks` of `M2FSegmentationModel`.
        size: (H, W) of the image before padding.
        regions: independent regions instead of exclusive labels.

    Returns:
        (B, K, H, W), at least float32, finite, between -14 and 14.
    """
    masks = queries["pred_masks"]
    masks = masks.to(torch.promote_types(masks.dtype, torch.float32))
    masks = F.interpolate(masks, scale_factor=MASK_STRIDE, mode="bilinear", align_corners=False)
    scores = semantic_scores(queries["pred_logits"], masks[..., : size[0], : size[1]])
    if regions:
        return torch.logit(scores, eps=SCORE_EPSILON)
    return torch.log(scores + SCORE_EPSILON)
