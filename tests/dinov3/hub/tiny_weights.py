"""A miniature DINOv3 state dict with Meta's names and shapes, written out from the published layout."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH, DEPTH, HEADS, STORAGE_TOKENS = 64, 3, 2, 4

TINY = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
"""Overrides of a hub entry that give a model for these weights."""


def meta_weights(*, gated: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Random weights, with the biases of queries, keys and values at zero and their mask all zero, as released."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in _shapes(gated).items()}
    for block in range(DEPTH):
        weights[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(3 * WIDTH)
        weights[f"blocks.{block}.attn.qkv.bias_mask"] = torch.zeros(3 * WIDTH)
    frequencies = WIDTH // HEADS // 4
    weights["rope_embed.periods"] = 100.0 ** (torch.arange(frequencies) / frequencies)
    return weights


def _shapes(gated: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "storage_tokens": (1, STORAGE_TOKENS, WIDTH),
        "mask_token": (1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    hidden = 4 * WIDTH
    narrow, wide = (WIDTH, hidden), (hidden, WIDTH)
    mlp = {"w1": wide, "w2": wide, "w3": narrow} if gated else {"fc1": wide, "fc2": narrow}
    for block in range(DEPTH):
        linears = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
        linears |= {f"mlp.{name}": shape for name, shape in mlp.items()}
        for name, shape in linears.items():
            shapes[f"blocks.{block}.{name}.weight"] = shape
            shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{block}.{name}"] = (WIDTH,)
    return shapes
