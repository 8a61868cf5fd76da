"""One block of a vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dinov3.layers.attention import SelfAttention
from dinov3.layers.drop_path import DropPath
from dinov3.layers.ffn_layers import make_ffn
from dinov3.layers.layer_scale import LayerScale
from dinov3.layers.norms import make_norm
from dinov3.layers.rope_position_encoding import Rotation


class SelfAttentionBlock(nn.Module):
    """Pre-norm transformer block: self-attention and a feed-forward layer, both residual.

    Args:
        dim: Channels of the tokens.
        num_heads: Heads of the attention.
        qkv_bias: Use a bias for queries, keys and values.
        mask_k_bias: Mask the key bias.
        proj_bias: Use a bias in the output projection of the attention.
        ffn_layer: Name of the feed-forward layer, see `dinov3.layers.ffn_layers`.
        ffn_ratio: Hidden width of the feed-forward layer, in units of `dim`.
        ffn_bias: Use biases in the feed-forward layer.
        norm_layer: Name of the normalisation, see `dinov3.layers.norms`.
        init_values: Initial value of the layer scales; None or 0: no layer scales.
        drop_path: Probability that a branch is dropped for a sample while training.
        device: Device on which parameters are created.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = False,
        mask_k_bias: bool = False,
        proj_bias: bool = True,
        ffn_layer: str = "mlp",
        ffn_ratio: float = 4.0,
        ffn_bias: bool = True,
        norm_layer: str = "layernorm",
        init_values: float | None = None,
        drop_path: float = 0.0,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm_layer, dim, device)
        self.attn = SelfAttention(
            dim, num_heads, qkv_bias=qkv_bias, mask_k_bias=mask_k_bias, proj_bias=proj_bias, device=device
        )
        self.ls1 = LayerScale(dim, init_values, device) if init_values else nn.Identity()
        self.norm2 = make_norm(norm_layer, dim, device)
        self.mlp = make_ffn(ffn_layer, dim, int(dim * ffn_ratio), ffn_bias, device)
        self.ls2 = LayerScale(dim, init_values, device) if init_values else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, rotation: Rotation | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """Takes and returns (B, N, dim); the other arguments are those of `SelfAttention`."""
        tokens = tokens + self.drop_path(self.ls1(self.attn(self.norm1(tokens), rotation, attention_mask)))
        return tokens + self.drop_path(self.ls2(self.mlp(self.norm2(tokens))))
