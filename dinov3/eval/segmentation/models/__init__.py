"""Segmentation models on top of a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dinov3.eval.segmentation.models.backbone.dinov3_adapter import DINOv3_Adapter
from dinov3.eval.segmentation.models.backbone_layers import BackboneLayersSet, backbone_out_indices
from dinov3.eval.segmentation.models.feature_decoder import FeatureDecoder
from dinov3.eval.segmentation.models.heads.mask2former_head import Mask2FormerHead

__all__ = ["BackboneLayersSet", "FeatureDecoder", "backbone_out_indices", "build_segmentation_decoder"]

SCALES = ("1", "2", "3", "4")  # 1/4, 1/8, 1/16, 1/32 of the image


def build_segmentation_decoder(  # noqa: PLR0913 - one flat list of settings is what configurations hold
    backbone_model: nn.Module,
    backbone_out_layers: BackboneLayersSet | str | Sequence[int] = BackboneLayersSet.FOUR_EVEN_INTERVALS,
    decoder_type: str = "m2f",
    hidden_dim: int = 2048,
    num_classes: int = 150,
    dropout: float = 0.1,
    autocast_dtype: torch.dtype = torch.float32,
    lora_enabled: bool = False,
    *,
    freeze_backbone: bool = True,
    num_heads: int = 16,
    dim_feedforward: int = 4096,
    num_queries: int = 100,
    num_decoder_layers: int = 9,
    num_encoder_layers: int = 6,
    drop_path_rate: float = 0.3,
    with_cp: bool = True,
) -> FeatureDecoder:
    """Builds adapter and Mask2Former head around a backbone.

    The defaults are those of the released ADE20K model, whose weights load into what they build. For training on few
    images `hidden_dim=256, num_heads=8, dim_feedforward=1024` has a seventeenth of the parameters.

    Args:
        backbone_model: Has `embed_dim`, `patch_size`, `n_blocks` (or `num_blocks`) and `get_intermediate_layers`, see
            `DINOv3_Adapter`.
        backbone_out_layers: Four blocks to read: a choice, its name, or 0-based indices.
        decoder_type: "m2f".
        hidden_dim: Channels of the head, a multiple of 32.
        num_classes: K, without "no object".
        dropout: In [0, 1], of a linear head; Mask2Former is trained without.
        autocast_dtype: bfloat16 or float16 runs the model under autocast; float32 leaves precision to the caller.
        lora_enabled: The backbone carries LoRA layers: its `requires_grad` flags stay as they are.
        freeze_backbone: Switch off all gradients of the backbone, unless `lora_enabled`. False for full fine-tuning.
        num_heads: Heads of all attention layers of the head.
        dim_feedforward: Hidden width of all feed-forward networks of the head.
        num_queries: Q, the most masks that an image can have.
        num_decoder_layers: Layers of the mask transformer.
        num_encoder_layers: Layers of the pixel decoder.
        drop_path_rate: Probability in [0, 1) that a sample skips a feed-forward network of the adapter in training.
        with_cp: Recompute the adapter's extractors in the backward pass instead of keeping their activations.

    Returns:
        A model whose forward pass takes (B, 3, H, W), H and W multiples of 32, and returns `pred_logits` (B, Q, K + 1),
        `pred_masks` (B, Q, H/4, W/4) and `aux_outputs`, a list of `num_decoder_layers` such dictionaries.

    Raises:
        ValueError: If the decoder type is unknown or a size does not fit.
    """
    if decoder_type != "m2f":
        raise ValueError(f"The decoder type {decoder_type!r} is unknown; choose 'm2f'.")
    num_blocks = backbone_model.n_blocks if hasattr(backbone_model, "n_blocks") else backbone_model.num_blocks
    adapter = DINOv3_Adapter(
        backbone_model,
        interaction_indexes=backbone_out_indices(num_blocks, backbone_out_layers),
        drop_path_rate=drop_path_rate,
        with_cp=with_cp,
        freeze_backbone=freeze_backbone and not lora_enabled,
    )
    head = Mask2FormerHead(
        dict.fromkeys(SCALES, backbone_model.embed_dim),
        num_classes,
        hidden_dim,
        num_heads=num_heads,
        dim_feedforward=dim_feedforward,
        num_queries=num_queries,
        num_decoder_layers=num_decoder_layers,
        num_encoder_layers=num_encoder_layers,
    )
    return FeatureDecoder(nn.ModuleList([adapter, head]), autocast_dtype)
