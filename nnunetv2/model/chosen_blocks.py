"""Which blocks of a vision transformer a head reads."""

from __future__ import annotations

from collections.abc import Sequence

from dinov3.eval.segmentation.models import backbone_out_indices
from nnunetv2.model.head_config import EVEN_INTERVALS, DenseHeadConfig, HeadConfig, default_blocks, fits_number


def chosen_blocks(
    num_blocks: int, layers: str | Sequence[int] | None, config: type[HeadConfig] = DenseHeadConfig
) -> list[int]:
    """Resolves the setting `backbone_out_layers` to block numbers.

    Args:
        num_blocks: number of blocks of the transformer.
        layers: `FOUR_EVEN_INTERVALS` ([4, 11, 17, 23] of 24 blocks), `FOUR_LAST`, `LAST`,
            `EVEN_INTERVALS` (as many as the head reads), or 0-based numbers, ascending; None: the head's default.
        config: settings class of the head, which defines how many blocks it reads; by default four.

    Raises:
        ValueError: the name is unknown, or the list is not ascending, has a block that does not exist, or has another
            length than the head needs.
    """
    if config.num_blocks == 0:
        return []
    layers = default_blocks(config) if layers is None else layers
    if layers == EVEN_INTERVALS and config.num_blocks > 0:
        layers = [num_blocks * (part + 1) // config.num_blocks - 1 for part in range(config.num_blocks)]
    if not isinstance(layers, str):
        layers = list(layers)
        if not all(type(block) is int for block in layers):
            raise ValueError(f"model.backbone_out_layers={layers} must list whole numbers")
    try:
        blocks = backbone_out_indices(num_blocks, layers)
    except ValueError as err:
        raise ValueError(f"model.backbone_out_layers={layers} cannot be read: {err}") from err
    if not fits_number(config, blocks):
        raise ValueError(f"model.backbone_out_layers={layers} names {len(blocks)} blocks; name {config.num_blocks}")
    return blocks
