"""The three residual layers of the mask transformer, each with post-norm.

Shapes: B batch, Q queries, T tokens, C hidden channels. Parameters are named as in `nn.MultiheadAttention`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.layers.joint_casts import in_half


class MultiheadAttention(nn.Module):
    """Multi-head attention with one mask shared by all heads, which avoids a copy per head.

    Args:
        embed_dim: Channels C.
        num_heads: Heads; must divide C.

    Raises:
        ValueError: If C is not divisible by the number of heads.

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2, arXiv:1706.03762.
    """

    looks_up_halves = True

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"{embed_dim} channels cannot be divided among {num_heads} heads; choose a number that divides them."
            )
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Computes the attention.

        Args:
            query: (B, Q, C).
            key: (B, T, C).
            value: (B, T, C).
            allowed: (B, 1, Q, T), True where a query may attend; None: no restriction. A row without True gives zeros.

        Returns:
            (B, Q, C).
        """
        # One product for query and key of the same tokens, which is one kernel instead of two and half of their casts.
        together = [(query, 2), (value, 1)] if key is query else [(query, 1), (key, 1), (value, 1)]
        rows = [number * query.shape[-1] for _, number in together]
        weights, biases = in_half(self.in_proj_weight).split(rows), in_half(self.in_proj_bias).split(rows)
        heads = [
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, tokens, c)
            for (tokens, number), weight, bias in zip(together, weights, biases, strict=True)
            for part in F.linear(tokens, weight, bias).chunk(number, dim=-1)
        ]
        attended = F.scaled_dot_product_attention(*heads, attn_mask=allowed)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class CrossAttentionLayer(nn.Module):
    """Queries attend to the cells of a feature map that their mask allows."""

    def __init__(self, hidden_dim: int, num_heads: int) -> None:
        super().__init__()
        self.multihead_attn = MultiheadAttention(hidden_dim, num_heads)
        self.norm = nn.LayerNorm(hidden_dim)

    def forward(
        self, query: Tensor, query_position: Tensor, memory: Tensor, position: Tensor, allowed: Tensor
    ) -> Tensor:
        """Takes (B, Q, C), (Q, C), (B, T, C), (1, T, C), (B, 1, Q, T) and returns (B, Q, C)."""
        attended = self.multihead_attn(query + query_position, memory + position, memory, allowed)
        return self.norm(query + attended)


class SelfAttentionLayer(nn.Module):
    """Queries attend to each other."""

    def __init__(self, hidden_dim: int, num_heads: int) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(hidden_dim, num_heads)
        self.norm = nn.LayerNorm(hidden_dim)

    def forward(self, query: Tensor, query_position: Tensor) -> Tensor:
        """Takes (B, Q, C) and (Q, C); returns (B, Q, C)."""
        located = query + query_position
        return self.norm(query + self.self_attn(located, located, query))


class FeedForwardLayer(nn.Module):
    """Two linear layers with a ReLU in between."""

    def __init__(self, hidden_dim: int, dim_feedforward: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(hidden_dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, query: Tensor) -> Tensor:
        """Takes and returns (B, Q, C)."""
        return self.norm(query + self.linear2(F.relu(self.linear1(query))))
