"""EoMT as a network for nnU-Net, under its name in plans."""

from __future__ import annotations

from typing import Any

from nnunetv2.model.backbone_families import FAMILIES
from nnunetv2.model.heads.eomt import annealed_probabilities, without_rotation
from nnunetv2.model.mask_resolution import unnamed_upscale_blocks
from nnunetv2.model.query_network import QueryNetwork
from nnunetv2.model.vit_network import FlatNames

__all__ = ["EoMTSegmentationModel", "annealed_probabilities", "without_rotation"]


class EoMTSegmentationModel(FlatNames, QueryNetwork):
    """`ViTNetwork` with the head `eomt`; the head's settings are direct arguments.

    Without `num_upscale_blocks`, masks have the resolution of the models whose plans do not name it, see
    `unnamed_upscale_blocks`.
    """

    head_name = "eomt"

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool | None = None,
        *,
        backbone: str = "dinov3",
        backbone_size: str = "large",
        **settings: Any,
    ) -> None:
        row = FAMILIES.get(backbone, {}).get(backbone_size)
        if row is not None:  # else the constructor names the known ones
            settings.setdefault("num_upscale_blocks", unnamed_upscale_blocks(row.shape.patch_size))
        names = {"backbone": backbone, "backbone_size": backbone_size}
        super().__init__(input_channels, num_classes, deep_supervision, **names, **settings)
