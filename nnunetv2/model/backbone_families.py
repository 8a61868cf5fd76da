"""The table of backbones: families of vision transformers, their sizes, and where weights of each are.

Adding a size is adding a row. Each family has a `tiny` size, an unreleased miniature of its architecture, for
demonstrations and tests without a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nnunetv2.model.backbone_shape import BackboneShape


@dataclass(frozen=True)
class BackboneSize:
    """One row of a family's table."""

    timm_name: str
    """Model of timm that is built."""
    weights: str | None
    """Tag of the released weights on timm's hub; None: there are none."""
    shape: BackboneShape
    """What weights must have to fit."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments that change the timm model."""
    request: str | None = None
    """Which file to get, and where, if it cannot be downloaded without asking."""
    in_tree_name: str | None = None
    """The size of `dinov3.hub.architectures.SIZES` that is built instead of timm's model."""


_TINY = {"embed_dim": 128, "depth": 4, "num_heads": 4}
_LAYER_SCALE = {"init_values": 0.1}  # large enough for a miniature to learn from scratch
# Learned position embeddings belong to one size of images; for others they are resampled in the forward pass.
_ANY_SIZE = {"dynamic_img_size": True}
_RETFOUND_SITE = "https://huggingface.co/YukunZhou"
_VISIONFM_SITE = "https://github.com/ABILab-CUHK/VisionFM"


def _dinov3(timm_size: str, width: int, depth: int, *, is_gated: bool = False) -> BackboneSize:
    shape = BackboneShape(width, depth, 16, num_registers=4, is_gated=is_gated, positions="rotary")
    return BackboneSize(f"vit_{timm_size}_patch16_dinov3", "lvd1689m", shape)


def _dinov2(timm_size: str, width: int, depth: int, *, is_gated: bool = False, registers: int = 0) -> BackboneSize:
    name = f"vit_{timm_size}_patch14_reg{registers}_dinov2" if registers else f"vit_{timm_size}_patch14_dinov2"
    shape = BackboneShape(width, depth, 14, num_registers=registers, is_gated=is_gated)
    return BackboneSize(name, "lvd142m", shape, _ANY_SIZE)


def _miniature(row: BackboneSize, **options: Any) -> BackboneSize:
    shape = replace(row.shape, width=_TINY["embed_dim"], depth=_TINY["depth"])
    return replace(row, weights=None, request=None, shape=shape, options={**row.options, **_TINY, **options})


def _dinov2_sizes(registers: int, suffix: str) -> dict[str, BackboneSize]:
    small = _dinov2("small", 384, 12, registers=registers)
    sizes = {
        "tiny": _miniature(small, **_LAYER_SCALE),
        "small": small,
        "base": _dinov2("base", 768, 12, registers=registers),
        "large": _dinov2("large", 1024, 24, registers=registers),
        "giant": _dinov2("giant", 1536, 40, is_gated=True, registers=registers),
    }
    return {f"{name}{suffix}": row for name, row in sizes.items()}


_DINOV3 = {
    "tiny": _miniature(_dinov3("small", 384, 12), **_LAYER_SCALE),
    "small": _dinov3("small", 384, 12),
    "small_plus": _dinov3("small_plus", 384, 12, is_gated=True),
    "base": _dinov3("base", 768, 12),
    "large": _dinov3("large", 1024, 24),
    "huge_plus": _dinov3("huge_plus", 1280, 32, is_gated=True),
    "7b": _dinov3("7b", 4096, 40, is_gated=True),
}
_IN_TREE_NAMES = {
    "tiny": "dinov3_vits16",  # the numbers of the miniature go on top
    "small": "dinov3_vits16",
    "small_plus": "dinov3_vits16plus",
    "base": "dinov3_vitb16",
    "large": "dinov3_vitl16",
    "huge_plus": "dinov3_vith16plus",
    "7b": "dinov3_vit7b16",
}
_RETFOUND_MAE = BackboneSize(
    "vit_large_patch16_224",
    None,
    BackboneShape(1024, 24, 16),
    _ANY_SIZE,
    request=f"ask for RETFound_mae_natureCFP.pth (or natureOCT, meh, shanghai) at {_RETFOUND_SITE}",
)
_RETFOUND_DINOV2 = replace(
    _dinov2("large", 1024, 24),
    weights=None,
    options={**_ANY_SIZE, "img_size": 224},  # what it was trained on; DINOv2 itself was on 518
    request=f"ask for RETFound_dinov2_meh.pth (or shanghai) at {_RETFOUND_SITE}",
)
_VISIONFM = BackboneSize(
    "vit_base_patch16_224",
    None,
    BackboneShape(768, 12, 16),
    _ANY_SIZE,
    request=f"download the encoder of your modality, such as VFM_Fundus_weights.pth, through {_VISIONFM_SITE}",
)

FAMILIES: dict[str, dict[str, BackboneSize]] = {
    "dinov3": _DINOV3,
    "dinov3_native": {size: replace(row, in_tree_name=_IN_TREE_NAMES[size]) for size, row in _DINOV3.items()},
    "dinov2": _dinov2_sizes(0, "") | _dinov2_sizes(4, "_reg"),
    "retfound": {
        "tiny": _miniature(_RETFOUND_MAE),
        "mae_large": _RETFOUND_MAE,
        "dinov2_large": _RETFOUND_DINOV2,
    },
    "visionfm": {"tiny": _miniature(_VISIONFM), "base": _VISIONFM},
}


def settings_for(shape: BackboneShape) -> list[str]:
    """The settings that build a backbone of this shape, such as `model.backbone=dinov2 model.backbone_size=base`."""
    return [
        f"model.backbone={family} model.backbone_size={size}"
        for family, sizes in FAMILIES.items()
        for size, row in sizes.items()
        if not row.shape.differs_from(shape)
    ]
