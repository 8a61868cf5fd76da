"""RETFound, foundation models for retinal images, as timm builds them."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from nnunetv2.model.backbone_families import ANY_IMAGE_SIZE, FAMILIES, BackboneSize, miniature
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.backbones import TimmBackbone, register_backbone

_SITE = "https://huggingface.co/YukunZhou"
_MAE = BackboneSize(
    "vit_large_patch16_224",
    None,
    BackboneShape(1024, 24, 16),
    ANY_IMAGE_SIZE,
    request=f"ask for RETFound_mae_natureCFP.pth (or natureOCT, meh, shanghai) at {_SITE}",
)
_DINOV2 = replace(
    FAMILIES["dinov2"]["large"],
    weights=None,
    options={**ANY_IMAGE_SIZE, "img_size": 224},  # image size in pretraining; DINOv2 itself used 518
    request=f"ask for RETFound_dinov2_meh.pth (or shanghai) at {_SITE}",
)


@register_backbone("retfound")
class RETFound(TimmBackbone):
    """Pre-trained on 1.6 million colour fundus photographs and OCT scans, by masking or as DINOv2.

    Source: Zhou et al. 2023, "A foundation model for generalizable disease detection from retinal images",
    doi:10.1038/s41586-023-06555-x.
    """

    class Sizes:
        """The released sizes, and a miniature."""

        rows: ClassVar[dict[str, BackboneSize]] = {
            "tiny": miniature(_MAE),
            "mae_large": _MAE,
            "dinov2_large": _DINOV2,
        }
