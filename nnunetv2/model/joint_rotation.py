"""timm's attention with rotary positions that turns queries and keys together.

timm turns queries and keys apart, cuts off the prefix tokens and appends them again, and so launches forty kernels per
block and training step where eight suffice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.eva import EvaAttention
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from dinov3.layers.rope_position_encoding import Rotation, make_rotation, rotate_packed

_rotations = WeakTensorKeyDictionary()  # by the sines and cosines that a backbone remembers, or makes for one pass


class JointlyRotatedAttention(EvaAttention):
    """Computes the same as timm's module, up to rounding, with its parameters under their names."""

    def __init__(self, attention: EvaAttention) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(attention.__dict__)

    def forward(self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None) -> Tensor:
        """Attends from every token to all tokens of its image.

        Args:
            x: (B, N, D).
            rope: sines and cosines (N - P, 2d) of all tokens after the P prefix tokens.
            attn_mask: added to the attention logits, broadcast to (B, heads, N, N).
        """
        if rope is None:
            return super().forward(x, rope, attn_mask)
        bias = None if self.q_bias is None else torch.cat((self.q_bias, self.k_bias, self.v_bias))
        if bias is None or self.qkv_bias_separate:
            packed = self.qkv(x) if bias is None else self.qkv(x) + bias
        else:
            packed = F.linear(x, self.qkv.weight, bias)
        packed = packed.unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, heads, d)
        rotated = rotate_packed(packed, rotation_of(rope, self.num_prefix_tokens))
        heads = [tokens.transpose(1, 2) for tokens in rotated]  # (B, heads, N, d)
        dropout = self.attn_drop.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=attn_mask, dropout_p=dropout)
        return self.proj_drop(self.proj(self.norm(mixed.transpose(1, 2).flatten(2))))


def rotation_of(rope: Tensor, num_prefix_tokens: int) -> Rotation:
    """Converts timm's sines and cosines (N, 2d) to a rotation that starts with tokens without a position."""
    if torch.compiler.is_compiling():  # a traced tensor must not outlive its trace
        return make_rotation(*rope.chunk(2, dim=-1), num_prefix_tokens)
    known = _rotations.setdefault(rope, {})
    if num_prefix_tokens not in known:
        with torch.inference_mode(False):  # tensors made in prediction must be usable in training
            known[num_prefix_tokens] = make_rotation(*rope.detach().clone().chunk(2, dim=-1), num_prefix_tokens)
    return known[num_prefix_tokens]


def rotating_jointly(attention: Any) -> Any:
    """Returns the attention with joint rotation if it is timm's and rotates halves; others stay as they are."""
    fits = type(attention) is EvaAttention and attention.qkv is not None and attention.rotate_half
    has_plain_queries = fits and isinstance(attention.q_norm, nn.Identity) and isinstance(attention.k_norm, nn.Identity)
    return JointlyRotatedAttention(attention) if has_plain_queries else attention
