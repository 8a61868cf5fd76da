"""Self-attention with rotary positions, and a linear layer whose keys have no bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinov3.layers.rope_position_encoding import Rotation, rotate


class LinearKMaskedBias(nn.Linear):
    """Joint linear layer for queries, keys and values, with the key bias masked.

    A key bias shifts all logits of a query by the same amount, to which the softmax is invariant. The mask is a buffer,
    1 for queries and values and 0 for keys, because released checkpoints contain one; an all-zero mask disables the
    bias entirely.

    Args:
        in_features: Channels of the tokens.
        out_features: Channels of queries, keys and values together.
        bias: Use a bias.
        device: Device on which parameters are created.

    Raises:
        ValueError: If `out_features` is not a multiple of 3.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: torch.device | str | None = None
    ) -> None:
        super().__init__(in_features, out_features, bias=bias, device=device)
        if out_features % 3:
            raise ValueError(
                f"{out_features} output channels were given; queries, keys and values need a multiple of 3."
            )
        if bias:
            self.register_buffer("bias_mask", torch.ones(out_features, device=device))
            self.reset_bias_mask()

    def reset_bias_mask(self) -> None:
        """Resets the mask: only the key bias is masked."""
        if self.bias is not None:
            self.bias_mask.fill_(1)
            self.bias_mask.chunk(3)[1].fill_(0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Takes (..., in_features), returns (..., out_features)."""
        bias = None if self.bias is None else self.bias * self.bias_mask.to(self.bias.dtype)
        return F.linear(tokens, self.weight, bias)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # In the original, the mask of a model saved before initialisation is NaN.
        if self.bias is not None and not self.bias_mask.is_meta and self.bias_mask.isnan().any():
            self.bias_mask = torch.empty_like(self.bias_mask)  # the given tensor, if assigned, belongs to the caller
            self.reset_bias_mask()


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Args:
        dim: Channels of the tokens, a multiple of `num_heads`.
        num_heads: Heads.
        qkv_bias: Use a bias for queries, keys and values.
        mask_k_bias: Mask the key bias.
        proj_bias: Use a bias in the output projection.
        device: Device on which parameters are created.

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2, arXiv:1706.03762.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = False,
        mask_k_bias: bool = False,
        proj_bias: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = (LinearKMaskedBias if mask_k_bias else nn.Linear)(dim, 3 * dim, bias=qkv_bias, device=device)
        self.proj = nn.Linear(dim, dim, bias=proj_bias, device=device)

    def forward(self, tokens: Tensor, rotation: Rotation | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """Attends from every token to all tokens of its image, or to those that the mask allows.

        Args:
            tokens: (B, N, dim).
            rotation: Positions of the N tokens.
            attention_mask: Added to the logits, broadcast to (B, heads, N, N); minus infinity masks a token.

        Returns:
            (B, N, dim).
        """
        packed = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, heads, head_dim)
        query_key, value = packed[:, :, :2], packed[:, :, 2]
        if rotation is not None:
            query_key = rotate(query_key, rotation)
        query, key = query_key.unbind(2)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        return self.proj(mixed.transpose(1, 2).flatten(2))
