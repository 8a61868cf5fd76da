"""Mask2Former on a vision transformer, as a network for nnU-Net: dense class logits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.models import FeatureDecoder, build_segmentation_decoder
from dinov3.eval.segmentation.semantic_inference import semantic_scores
from dinov3.layers.lora import apply_lora
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_weights import load_backbone_weights
from nnunetv2.model.backbones import TimmBackbone, create_backbone
from nnunetv2.model.input_adapter import InputAdapter

SIZE_MULTIPLE = 32  # stride of the coarsest feature map
MASK_STRIDE = 4
SCORE_EPSILON = 1e-6  # its logarithm, -13.8, and the sum of a few of them fit half precision


class M2FSegmentationModel(nn.Module):
    """ViT backbone, adapter pyramid, pixel decoder and mask transformer.

    The weights are random; `load_backbone_weights` fills the backbone. All arguments are plain data, so that the plans
    describe the network completely.

    Args:
        input_channels: channels C of the images.
        num_classes: outputs K: labels with background as class 0, or regions.
        deep_supervision: without effect; the loss supervises the layers of the mask transformer.
        backbone: family of the backbone, see `nnunetv2.model.backbones.FAMILIES`.
        backbone_size: size within the family.
        tuning: what of the backbone is trained: `frozen` (nothing), `lora` (adapters) or `full`.
        lora: `r`, `lora_alpha`, `lora_dropout`, `target_modules`; needed for `tuning="lora"`.
        regions: outputs are regions that may overlap, not exclusive labels.
        channel_adaptation: see `InputAdapter`.
        input_norm: see `InputAdapter`.
        backbone_out_layers: name of a choice of four blocks.
        hidden_dim: channels of the head.
        num_heads: attention heads of the head.
        dim_feedforward: hidden width of the head's feed-forward networks.
        num_queries: masks proposed per image.
        num_encoder_layers: layers of the pixel decoder.
        num_decoder_layers: layers of the mask transformer.
        drop_path_rate: probability in [0, 1) that a sample skips a feed-forward network of the adapter in training.
        gradient_checkpointing: recompute the adapter in the backward pass, which saves memory and costs time.

    Attributes:
        autocast_dtype: what prediction on a GPU computes in. Training does too, and products of queries and features of
            masks may pass 65504, the largest number of float16.

    Raises:
        UsageError: sizes that do not fit each other, or layers that LoRA cannot adapt.
    """

    autocast_dtype = torch.bfloat16

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool | None = None,
        *,
        backbone: str = "dinov3",
        backbone_size: str = "large",
        tuning: str = "frozen",
        lora: Mapping[str, Any] | None = None,
        regions: bool = False,
        channel_adaptation: str = "repeat",
        input_norm: str = "dataset",
        **decoder: Any,
    ) -> None:
        super().__init__()
        self.regions = regions
        self.input = InputAdapter(input_channels, channel_adaptation, input_norm)
        vit = create_backbone(backbone, backbone_size, in_channels=self.input.out_channels)
        try:
            _set_tuning(vit, tuning, lora)
            self.decoder = _build_decoder(vit, num_classes, **decoder)
        except ValueError as err:
            raise UsageError(f"The settings of the model do not fit: {err}") from err
        _widen_spatial_prior(self.decoder, self.input.out_channels)
        self.train()

    @property
    def backbone(self) -> TimmBackbone:
        return self.decoder.segmentation_model[0].backbone

    def load_backbone_weights(self, path: Path) -> None:
        """Fills the backbone from a file, see `nnunetv2.model.backbone_weights.load_backbone_weights`."""
        load_backbone_weights(self.backbone, path)

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
        queries = self.decoder(pad_to_multiple(self.input(x)))
        return queries if return_queries else dense_logits(queries, x.shape[-2:], regions=self.regions)


def pad_to_multiple(x: Tensor, multiple: int = SIZE_MULTIPLE) -> Tensor:
    """Appends zeros below and on the right of (B, C, H, W) until H and W are multiples."""
    # The modulus of a negative size would be shorter, and torch.compile fails on it where sizes vary.
    missing = [(multiple - side % multiple) % multiple for side in x.shape[-2:]]
    return F.pad(x, (0, missing[1], 0, missing[0]))


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


def _set_tuning(vit: TimmBackbone, tuning: str, lora: Mapping[str, Any] | None) -> None:
    if tuning == "full":
        return
    vit.freeze()
    if tuning == "lora":
        apply_lora(vit, **(lora or {}))
    elif tuning != "frozen":
        raise ValueError(f"model.tuning={tuning!r} is not known; choose frozen, lora or full")


def _build_decoder(
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
) -> FeatureDecoder:
    if num_queries < num_classes:
        raise ValueError(f"model.num_queries={num_queries} is below the number of classes, {num_classes}")
    return build_segmentation_decoder(
        vit,
        backbone_out_layers,
        hidden_dim=hidden_dim,
        num_classes=num_classes,
        freeze_backbone=False,
        num_heads=num_heads,
        dim_feedforward=dim_feedforward,
        num_queries=num_queries,
        num_encoder_layers=num_encoder_layers,
        num_decoder_layers=num_decoder_layers,
        drop_path_rate=drop_path_rate,
        with_cp=gradient_checkpointing,
    )


def _widen_spatial_prior(decoder: FeatureDecoder, channels: int) -> None:
    """Exchanges the first convolution of the adapter, made for RGB, by one for other images; it is trained anyway."""
    stem = decoder.segmentation_model[0].spm.stem
    first = stem[0]
    if first.in_channels != channels:
        stem[0] = nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)
        nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
