"""DINOv2 without and with registers, as timm builds it."""

from __future__ import annotations

from typing import ClassVar

from nnunetv2.model.backbone_families import ANY_IMAGE_SIZE, LAYER_SCALE, BackboneSize, miniature
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.backbones import TimmBackbone, register_backbone


def dinov2_size(timm_size: str, width: int, depth: int, *, is_gated: bool = False, registers: int = 0) -> BackboneSize:
    """Builds a row of the table; `registers` is 0 or 4."""
    name = f"vit_{timm_size}_patch14_reg{registers}_dinov2" if registers else f"vit_{timm_size}_patch14_dinov2"
    shape = BackboneShape(width, depth, 14, num_registers=registers, is_gated=is_gated)
    return BackboneSize(name, "lvd142m", shape, ANY_IMAGE_SIZE)


def _sizes(registers: int, suffix: str) -> dict[str, BackboneSize]:
    small = dinov2_size("small", 384, 12, registers=registers)
    sizes = {
        "tiny": miniature(small, **LAYER_SCALE),
        "small": small,
        "base": dinov2_size("base", 768, 12, registers=registers),
        "large": dinov2_size("large", 1024, 24, registers=registers),
        "giant": dinov2_size("giant", 1536, 40, is_gated=True, registers=registers),
    }
    return {f"{name}{suffix}": row for name, row in sizes.items()}


@register_backbone("dinov2")
class DINOv2(TimmBackbone):
    """Self-supervised on 142 million images; learned positions, patches of 14.

    Source: Oquab et al. 2023, "DINOv2", arXiv:2304.07193; Darcet et al. 2023, "Vision Transformers Need Registers",
    arXiv:2309.16588.
    """

    class Sizes:
        """The released sizes, and a miniature; `_reg` with four registers."""

        rows: ClassVar[dict[str, BackboneSize]] = _sizes(0, "") | _sizes(4, "_reg")
