"""A tiny vision transformer with the interface that the adapter asks of a backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FakeBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = nn.Module()
        self.attn.qkv = nn.Linear(dim, 3 * dim)
        self.attn.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.attn.qkv(self.norm(tokens)).chunk(3, dim=-1)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return tokens + self.attn.proj(mixed)


class FakeBackbone(nn.Module):
    """Patches, blocks of single-head attention, no position encoding."""

    def __init__(self, embed_dim: int = 64, n_blocks: int = 4, patch_size: int = 16) -> None:
        super().__init__()
        self.embed_dim, self.n_blocks, self.patch_size = embed_dim, n_blocks, patch_size
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)
        self.blocks = nn.ModuleList(FakeBlock(embed_dim) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(embed_dim)

    def get_intermediate_layers(
        self, image: Tensor, n: list[int], reshape: bool = False, norm: bool = True
    ) -> tuple[Tensor, ...]:
        maps = self.patch_embed.proj(image)
        tokens, size = maps.flatten(2).transpose(1, 2), maps.shape[-2:]
        taken = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in n:
                taken.append(self.norm(tokens) if norm else tokens)
        return tuple(layer.transpose(1, 2).unflatten(-1, size) if reshape else layer for layer in taken)
