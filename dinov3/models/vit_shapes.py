"""Vision transformer sizes named in Meta's code; imports nothing heavy."""

from __future__ import annotations

from typing import NamedTuple


class VitShape(NamedTuple):
    """Arguments of `DinoVisionTransformer` that define a size."""

    embed_dim: int
    depth: int
    """Number of blocks."""
    num_heads: int
    ffn_ratio: float = 4.0
    """Hidden width of the feed-forward network relative to `embed_dim`."""


VIT_SHAPES = {
    "vit_small": VitShape(384, 12, 6),
    "vit_base": VitShape(768, 12, 12),
    "vit_large": VitShape(1024, 24, 16),
    "vit_so400m": VitShape(1152, 27, 18, 3.777777778),
    "vit_huge2": VitShape(1280, 32, 20),
    "vit_giant2": VitShape(1536, 40, 24),
    "vit_7b": VitShape(4096, 40, 32, 3.0),
}
