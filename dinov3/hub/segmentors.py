"""Segmentation models by name: DINOv3 backbone, adapter and Mask2Former head, with released or own weights.

    model = dinov3_vit7b16_ms(weights="head.pth", backbone_weights="backbone.pth")

Names and arguments are those of Meta's hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from dinov3.eval.segmentation.models import FeatureDecoder, build_segmentation_decoder
from dinov3.hub.architectures import Weights, released_url
from dinov3.hub.backbones import BACKBONES
from dinov3.hub.checkpoint_files import read_state_dict
from dinov3.hub.downloads import local_copy
from dinov3.hub.load_weights import load_weights
from dinov3.utils.errors import UsageError

__all__ = ["SegmentorWeights", "dinov3_vit7b16_ms", "make_m2f_segmentor"]

_BACKBONE = "segmentation_model.0.backbone."


class SegmentorWeights(Enum):
    """Training datasets of released heads."""

    ADE20K = "ADE20K"
    """150 classes of indoor and outdoor scenes."""


_HASHES = {("dinov3_vit7b16", SegmentorWeights.ADE20K): "bf307cb1"}  # of all heads that were released


def dinov3_vit7b16_ms(
    *,
    pretrained: bool = True,
    weights: SegmentorWeights | str | os.PathLike = SegmentorWeights.ADE20K,
    backbone_weights: Weights | str | os.PathLike = Weights.LVD1689M,
    check_hash: bool = False,
    autocast_dtype: torch.dtype = torch.bfloat16,
    **kwargs: Any,
) -> FeatureDecoder:
    """Mask2Former on the ViT-7B/16: 6.7 billion parameters in the backbone (27 GB), 0.9 billion in the rest (3.7 GB).

    Arguments, result and errors are those of `make_m2f_segmentor`.
    """
    files = {"weights": weights, "backbone_weights": backbone_weights, "check_hash": check_hash}
    options = {"pretrained": pretrained, "autocast_dtype": autocast_dtype, **files, **kwargs}
    return make_m2f_segmentor(backbone_name="dinov3_vit7b16", **options)


def make_m2f_segmentor(
    *,
    backbone_name: str = "dinov3_vit7b16",
    pretrained: bool = True,
    weights: SegmentorWeights | str | os.PathLike = SegmentorWeights.ADE20K,
    backbone_weights: Weights | str | os.PathLike = Weights.LVD1689M,
    check_hash: bool = False,
    autocast_dtype: torch.dtype = torch.bfloat16,
    backbone_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> FeatureDecoder:
    """Mask2Former on any backbone of `dinov3.hub.backbones`.

    Args:
        backbone_name: A key of `dinov3.hub.backbones.BACKBONES`.
        pretrained: Load weights; False: random weights everywhere.
        weights: Weights of adapter and head: released ones, or a file or URL. If a file also contains the backbone, it
            is loaded.
        backbone_weights: Weights of the backbone: released ones, or a file or URL, see the backbone's own hub entry.
            Ignored if `weights` contains the backbone.
        check_hash: Compare files with the hashes in their names.
        autocast_dtype: bfloat16 or float16 runs the model under autocast; float32: the caller controls precision.
        backbone_kwargs: Overrides of the released vision transformer's arguments.
        **kwargs: Further arguments of `build_segmentation_decoder`, such as `num_classes` and `hidden_dim`.

    Returns:
        The model on the CPU, in eval mode, its backbone frozen unless `freeze_backbone=False` is given.

    Raises:
        UsageError: The backbone is unknown, or the weights were not released or are not available.
        ValueError: Settings of the model contradict each other.
        DataError: A file is damaged or does not fit.
    """
    if backbone_name not in BACKBONES:
        raise UsageError(f"The backbone {backbone_name!r} is unknown; choose one of {', '.join(BACKBONES)}")
    tensors: dict[str, Tensor] = {}
    if pretrained:
        source = _source(backbone_name, weights)
        tensors = read_state_dict(local_copy(source, check_hash=check_hash))
    holds_backbone = any(name.startswith(_BACKBONE) for name in tensors)
    vit_options = dict(backbone_kwargs or {})
    if holds_backbone:
        vit_options.setdefault("untie_global_and_local_cls_norm", f"{_BACKBONE}local_cls_norm.weight" in tensors)
    backbone = BACKBONES[backbone_name](
        pretrained=pretrained and not holds_backbone, weights=backbone_weights, check_hash=check_hash, **vit_options
    )
    model = build_segmentation_decoder(backbone, decoder_type="m2f", autocast_dtype=autocast_dtype, **kwargs)
    if pretrained:
        allowed_missing = () if holds_backbone else (f"{_BACKBONE}*",)
        load_weights(model, tensors, allowed_missing=allowed_missing, source_name=_shown(source))
    return model.eval()


def _source(backbone_name: str, weights: SegmentorWeights | str | os.PathLike) -> str | os.PathLike:
    """Resolves weights to a file or URL; released heads are stored next to the weights of their backbone."""
    if isinstance(weights, str) and weights in SegmentorWeights.__members__:
        weights = SegmentorWeights[weights]
    if not isinstance(weights, SegmentorWeights):
        return weights
    if (backbone_name, weights) not in _HASHES:
        released = ", ".join(f"{dataset.value} on {name}" for name, dataset in _HASHES)
        raise UsageError(
            f"No head for {weights.value} was released on {backbone_name}; there is {released}. "
            f"Give a file of your own (weights=PATH), or pretrained=False"
        )
    folder = released_url(backbone_name, Weights.LVD1689M).rpartition("/")[0]
    return f"{folder}/{backbone_name}_{weights.value.lower()}_m2f_head-{_HASHES[backbone_name, weights]}.pth"


def _shown(source: str | os.PathLike) -> str:
    return os.fspath(source).partition("?")[0]  # hides the query of a URL, which may be a signature that grants access
