"""Multi-scale Primus: upsamples the maps of four blocks to pixels by transposed convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nnunetv2.model.head import register_head
from nnunetv2.model.patch_decode import PatchDecodeHead
from nnunetv2.model.patch_decode_config import PatchDecodeConfig


@register_head("primus_multiscale")
class PrimusMultiscale(PatchDecodeHead):
    """Primus' decoder on four maps side by side; shallow blocks add the detail that the last one has lost.

    Source: Li et al. 2025, "MedDINOv3: How to adapt vision foundation models for medical image segmentation?",
    arXiv:2509.02379; Wald et al. 2025, "Primus", arXiv:2503.01835.
    """

    @dataclass
    class Config(PatchDecodeConfig):
        """Backbone, and a decoder of transposed convolutions on four of its maps."""

        # As MedDINOv3 trains this decoder with AdamW (github.com/ricklisz/MedDINOv3).
        training: ClassVar[Mapping[str, Any]] = {"lr": 3e-4}

        embed_dim: int | None = 256
        """Channels per map after projection; the decoder starts with four times as many. null: the backbone's width,
        without projection. The decoder grows with the square: on a large backbone it has 7.0 million parameters with
        256 and 44.6 million with null, 33.6 of them in the first stage."""
