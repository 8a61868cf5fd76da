"""Primus: upsamples the deepest map of a vision transformer to pixels by transposed convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nnunetv2.model.head import register_head
from nnunetv2.model.patch_decode import PatchDecodeHead
from nnunetv2.model.patch_decode_config import PatchDecodeConfig


@register_head("primus")
class Primus(PatchDecodeHead):
    """Primus' light decoder on the last block's map; no pixel sees its neighbours.

    Suits a trained transformer (`tuning: full` or `lora`), because the backbone itself must do the segmentation.

    Source: Wald et al. 2025, "Primus: Enforcing Attention Usage for 3D Medical Image Segmentation", arXiv:2503.01835.
    """

    @dataclass
    class Config(PatchDecodeConfig):
        """Backbone, and a decoder of transposed convolutions on its last map."""

        num_blocks: ClassVar[int] = 1
        blocks: ClassVar[str] = "LAST"
        # As MedDINOv3 trains this decoder with AdamW (github.com/ricklisz/MedDINOv3).
        training: ClassVar[Mapping[str, Any]] = {"lr": 3e-4}
