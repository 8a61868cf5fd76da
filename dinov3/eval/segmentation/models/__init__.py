"""Segmentation models on top of a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dinov3.eval.segmentation.models.backbone.dinov3_adapter import DINOv3_Adapter
from dinov3.eval.segmentation.models.backbone.intermediate_layers import ModelWithIntermediateLayers
from dinov3.eval.segmentation.models.backbone_layers import backbone_out_indices
from dinov3.eval.segmentation.models.feature_decoder import FeatureDecoder
from dinov3.eval.segmentation.models.heads.linear_head import LinearHead
from dinov3.eval.segmentation.models.heads.mask2former_head import Mask2FormerHead
from dinov3.eval.segmentation.settings.head import DECODERS, BackboneLayersSet, DecoderConfig

__all__ = ["BackboneLayersSet", "FeatureDecoder", "backbone_out_indices", "build_segmentation_decoder"]

SCALES = ("1", "2", "3", "4")  # 1/4, 1/8, 1/16, 1/32 of the image


def build_segmentation_decoder(  # noqa: PLR0913 - one flat list of settings is what configurations hold
    backbone_model: nn.Module,
    backbone_out_layers: BackboneLayersSet | str | Sequence[int] = BackboneLayersSet.FOUR_EVEN_INTERVALS,
    decoder_type: str = DecoderConfig.type,
    hidden_dim: int = DecoderConfig.hidden_dim,
    num_classes: int = DecoderConfig.num_classes,
    dropout: float = DecoderConfig.dropout,
    autocast_dtype: torch.dtype = torch.float32,
    lora_enabled: bool = False,
    *,
    freeze_backbone: bool = True,
    in_channels: int = 3,
    num_heads: int = DecoderConfig.num_heads,
    dim_feedforward: int = DecoderConfig.dim_feedforward,
    num_queries: int = DecoderConfig.num_queries,
    num_decoder_layers: int = DecoderConfig.num_decoder_layers,
    num_encoder_layers: int = DecoderConfig.num_encoder_layers,
    drop_path_rate: float = DecoderConfig.drop_path_rate,
    with_cp: bool = DecoderConfig.gradient_checkpointing,
    use_batchnorm: bool = DecoderConfig.use_batchnorm,
    use_cls_token: bool = DecoderConfig.use_cls_token,
    use_backbone_norm: bool = DecoderConfig.use_backbone_norm,
    device: torch.device | str | None = None,
) -> FeatureDecoder:
    """Builds a segmentation model around a backbone: adapter and Mask2Former head, or a linear head.

    The defaults of "m2f" are those of the released ADE20K model, so that its weights can be loaded. For training on few
    images, `hidden_dim=256, num_heads=8, dim_feedforward=1024` needs a seventeenth of the parameters.

    Args:
        backbone_model: Has `embed_dim`, `patch_size`, `n_blocks` (or `num_blocks`) and `get_intermediate_layers`, see
            `DINOv3_Adapter`.
        backbone_out_layers: Blocks to read: a `BackboneLayersSet`, its name, or 0-based indices. "m2f" reads four,
            "linear" any number.
        decoder_type: "m2f" or "linear".
        hidden_dim: m2f: channels of the head, a multiple of 32.
        num_classes: K, without "no object".
        dropout: linear: probability in [0, 1] that a channel is dropped in training. Mask2Former has no dropout.
        autocast_dtype: bfloat16 or float16 runs the model under autocast; float32: the caller controls precision.
        lora_enabled: The backbone has LoRA layers: its `requires_grad` flags are not changed.
        freeze_backbone: Freeze the backbone, unless `lora_enabled`. False for full fine-tuning.
        in_channels: m2f: input channels C of the backbone.
        num_heads: m2f: heads of all attention layers of the head.
        dim_feedforward: m2f: hidden width of all feed-forward networks of the head.
        num_queries: m2f: Q, maximum number of masks per image.
        num_decoder_layers: m2f: layers of the mask transformer.
        num_encoder_layers: m2f: layers of the pixel decoder.
        drop_path_rate: m2f: probability in [0, 1) that a sample skips a feed-forward network of the adapter while
            training.
        with_cp: m2f: recompute the adapter's extractors in the backward pass instead of keeping their activations.
        use_batchnorm: linear: normalise the features before the classifier.
        use_cls_token: linear: concatenate the class token to each patch.
        use_backbone_norm: linear: apply the backbone's final norm to each block. The adapter always does.
        device: Ignored; kept for compatibility with the original. The model runs where its parameters are.

    Returns:
        A model whose forward pass takes (B, C, H, W). "m2f": H and W multiples of 32; returns `pred_logits` (B, Q, K +
        1), `pred_masks` (B, Q, H/4, W/4) and `aux_outputs`, a list of `num_decoder_layers` such dictionaries. "linear":
        H and W multiples of the patch size p; returns logits (B, K, H/p, W/p). Frozen backbone and adapter are in eval
        mode, as in the original: call `train()` before training.

    Raises:
        ValueError: If the decoder type is unknown or a size is incompatible.
    """
    if decoder_type not in DECODERS:
        known = ", ".join(reversed(DECODERS))  # the default first
        raise ValueError(f"The decoder type {decoder_type!r} is unknown; choose one of {known}.")
    num_blocks = backbone_model.n_blocks if hasattr(backbone_model, "n_blocks") else backbone_model.num_blocks
    blocks = backbone_out_indices(num_blocks, backbone_out_layers)
    freeze = freeze_backbone and not lora_enabled
    extractor: nn.Module
    head: nn.Module
    if decoder_type == "linear":
        extractor = ModelWithIntermediateLayers(
            backbone_model, blocks, return_class_token=use_cls_token, norm=use_backbone_norm, freeze_backbone=freeze
        )
        channels = [backbone_model.embed_dim] * len(blocks)
        head = LinearHead(channels, num_classes, use_batchnorm, use_cls_token, dropout)
    else:
        extractor = DINOv3_Adapter(
            backbone_model,
            interaction_indexes=blocks,
            drop_path_rate=drop_path_rate,
            with_cp=with_cp,
            freeze_backbone=freeze,
            in_channels=in_channels,
        ).eval()
        head = Mask2FormerHead(
            dict.fromkeys(SCALES, (backbone_model.embed_dim,)),
            hidden_dim,
            num_classes,
            num_heads=num_heads,
            dim_feedforward=dim_feedforward,
            num_queries=num_queries,
            num_decoder_layers=num_decoder_layers,
            num_encoder_layers=num_encoder_layers,
        )
    return FeatureDecoder(nn.ModuleList([extractor, head]), autocast_dtype)
