"""DINOv3, as the `dinov3` package builds it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from nnunetv2.model.backbone_families import FAMILIES, BackboneSize
from nnunetv2.model.backbones import register_backbone
from nnunetv2.model.in_tree_backbone import InTreeBackbone

_IN_TREE_NAMES = {
    "tiny": "dinov3_vits16",  # the miniature's numbers override these
    "small": "dinov3_vits16",
    "small_plus": "dinov3_vits16plus",
    "base": "dinov3_vitb16",
    "large": "dinov3_vitl16",
    "huge_plus": "dinov3_vith16plus",
    "7b": "dinov3_vit7b16",
}


@register_backbone("dinov3_native")
class DINOv3Native(InTreeBackbone):
    """The transformers of `dinov3` with Meta's tensor names, which LoRA's `target_modules` can refer to."""

    class Sizes:
        """The sizes of `dinov3`."""

        rows: ClassVar[dict[str, BackboneSize]] = {
            size: replace(row, in_tree_name=_IN_TREE_NAMES[size]) for size, row in FAMILIES["dinov3"].items()
        }
