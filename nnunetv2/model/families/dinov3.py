"""DINOv3, as timm builds it."""

from __future__ import annotations

from typing import ClassVar

from nnunetv2.model.backbone_families import LAYER_SCALE, BackboneSize, miniature
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.backbones import TimmBackbone, register_backbone


def _size(timm_size: str, width: int, depth: int, *, is_gated: bool = False) -> BackboneSize:
    shape = BackboneShape(width, depth, 16, num_registers=4, is_gated=is_gated, positions="rotary")
    return BackboneSize(f"vit_{timm_size}_patch16_dinov3", "lvd1689m", shape)


@register_backbone("dinov3")
class DINOv3(TimmBackbone):
    """Self-supervised on 1.7 billion images; rotary positions, patches of 16.

    Source: Simeoni et al. 2025, "DINOv3", arXiv:2508.10104.
    """

    class Sizes:
        """The released sizes, and a miniature."""

        rows: ClassVar[dict[str, BackboneSize]] = {
            "tiny": miniature(_size("small", 384, 12), **LAYER_SCALE),
            "small": _size("small", 384, 12),
            "small_plus": _size("small_plus", 384, 12, is_gated=True),
            "base": _size("base", 768, 12),
            "large": _size("large", 1024, 24),
            "huge_plus": _size("huge_plus", 1280, 32, is_gated=True),
            "7b": _size("7b", 4096, 40, is_gated=True),
        }
