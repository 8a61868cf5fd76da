"""The seven released sizes of the DINOv3 vision transformer: architecture and weight URLs.

Source: Meta's hub entries (`facebookresearch/dinov3`, `dinov3/hub/backbones.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dinov3.utils.errors import UsageError

_RELEASED_AT = "https://dl.fbaipublicfiles.com/dinov3"


class Weights(Enum):
    """Pretraining images of released weights."""

    LVD1689M = "LVD1689M"
    """1,689 million images from the web."""
    SAT493M = "SAT493M"
    """493 million satellite images."""


@dataclass(frozen=True)
class VitSize:
    """Architecture and released weights of one size."""

    embed_dim: int
    depth: int
    """Number of blocks."""
    num_heads: int
    hashes: Mapping[Weights, str]
    """Prefix of the SHA-256 of each released file, which is the suffix of its name."""
    ffn_layer: str = "mlp"
    ffn_ratio: float = 4.0
    qkv_bias: bool = True
    untied_norm: frozenset[Weights] = frozenset()
    """Released weights with a separate norm for the class tokens of local crops, which only pretraining uses."""


_LVD, _SAT = Weights.LVD1689M, Weights.SAT493M

SIZES: dict[str, VitSize] = {
    "dinov3_vits16": VitSize(384, 12, 6, {_LVD: "08c60483"}),
    "dinov3_vits16plus": VitSize(384, 12, 6, {_LVD: "4057cbaa"}, "swiglu", 6.0),
    "dinov3_vitb16": VitSize(768, 12, 12, {_LVD: "73cec8be"}),
    "dinov3_vitl16": VitSize(1024, 24, 16, {_LVD: "8aa4cbdd", _SAT: "eadcf0ff"}, untied_norm=frozenset({_SAT})),
    "dinov3_vitl16plus": VitSize(1024, 24, 16, {_LVD: "46503df0"}, "swiglu", 6.0),
    "dinov3_vith16plus": VitSize(1280, 32, 20, {_LVD: "7c1da9a5"}, "swiglu", 6.0),
    "dinov3_vit7b16": VitSize(
        4096, 40, 32, {_LVD: "a955f4ea", _SAT: "a6675841"}, "swiglu64", 3.0, False, frozenset({_LVD, _SAT})
    ),
}


def constructor_arguments(size: VitSize) -> dict[str, Any]:
    """Returns the arguments of `DinoVisionTransformer` for a released size."""
    return {
        "img_size": 224,
        "patch_size": 16,
        "in_chans": 3,
        "pos_embed_rope_base": 100.0,
        "pos_embed_rope_normalize_coords": "separate",
        "pos_embed_rope_rescale_coords": 2.0,
        "pos_embed_rope_dtype": "fp32",
        "embed_dim": size.embed_dim,
        "depth": size.depth,
        "num_heads": size.num_heads,
        "ffn_ratio": size.ffn_ratio,
        "qkv_bias": size.qkv_bias,
        "drop_path_rate": 0.0,
        "layerscale_init": 1e-5,
        "norm_layer": "layernormbf16",
        "ffn_layer": size.ffn_layer,
        "ffn_bias": True,
        "proj_bias": True,
        "n_storage_tokens": 4,
        "mask_k_bias": True,
    }


def released_url(name: str, weights: Weights, other_hash: str | None = None) -> str:
    """Returns Meta's URL of the weights of a size.

    Args:
        name: a key of `SIZES`.
        weights: pretraining images.
        other_hash: overrides the known hash in the file name.

    Raises:
        UsageError: these weights were not released for this size.
    """
    hashes = SIZES[name].hashes
    if weights not in hashes:
        others = [size for size, row in SIZES.items() if weights in row.hashes]
        raise UsageError(
            f"There are no {weights.value} weights of {name}; it has {', '.join(w.value for w in hashes)}, and "
            f"{weights.value} exists for {', '.join(others)}"
        )
    return f"{_RELEASED_AT}/{name}/{name}_pretrain_{weights.value.lower()}-{other_hash or hashes[weights]}.pth"


def describe_shapes(shapes: Mapping[str, Iterable[int]]) -> str | None:
    """Describes the size of a transformer, given the shapes of its tensors with Meta's names.

    Returns:
        For example `dinov3_vitb16 (768 wide, 12 blocks)`; None if the tensors contain no transformer.
    """
    blocks = [int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", name) for name in shapes) if match]
    if "cls_token" not in shapes or not blocks:
        return None
    width, depth = list(shapes["cls_token"])[-1], 1 + max(blocks)
    is_gated = "blocks.0.mlp.w1.weight" in shapes
    feed_forward = ", gated" if is_gated else ""
    words = f"{width} wide, {depth} blocks{feed_forward}"
    for name, size in SIZES.items():
        if (size.embed_dim, size.depth, size.ffn_layer != "mlp") == (width, depth, is_gated):
            return f"{name} ({words})"
    return words
