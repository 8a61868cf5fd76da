"""Which four blocks of a vision transformer a head reads."""

from __future__ import annotations

from collections.abc import Sequence

from dinov3.eval.segmentation.models import backbone_out_indices
from nnunetv2.model.feature_pyramid import NUM_MAPS


def four_blocks(num_blocks: int, layers: str | Sequence[int]) -> list[int]:
    """Numbers of the blocks that the setting `backbone_out_layers` stands for.

    Args:
        num_blocks: of the transformer.
        layers: `FOUR_EVEN_INTERVALS` ([4, 11, 17, 23] of 24 blocks), `FOUR_LAST`, or 0-based numbers, ascending.

    Raises:
        ValueError: an unknown name, or not four different existing blocks in ascending order.
    """
    if not isinstance(layers, str):
        layers = list(layers)
        if not all(type(block) is int for block in layers):
            raise ValueError(f"model.backbone_out_layers={layers} must list whole numbers")
    try:
        blocks = backbone_out_indices(num_blocks, layers)
    except ValueError as err:
        raise ValueError(f"model.backbone_out_layers={layers} cannot be read: {err}") from err
    if len(blocks) != NUM_MAPS:
        raise ValueError(f"model.backbone_out_layers={layers} names {len(blocks)} blocks; name {NUM_MAPS}")
    return blocks
