"""Mask transformer: predicts one class and one mask per learned query.

Shapes: B batch, Q queries, C hidden channels, K classes, h w size of the finest map (1/4 of the image). In volumes of D
slices, maps have a batch of B * D, the slices of a volume one after the other; queries, classes and masks are those of
volumes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.eval.segmentation.models.heads.masked_attention import (
    CrossAttentionLayer,
    FeedForwardLayer,
    SelfAttentionLayer,
)
from dinov3.eval.segmentation.models.utils.position_encoding import sine_position_encoding
from dinov3.eval.segmentation.settings.head import DecoderConfig

NUM_LEVELS = 3
NUM_MASK_LAYERS = 3
_MAPS = 4  # axes of maps of images


class MLP(nn.Module):
    """Linear layers of equal width with ReLUs in between."""

    def __init__(self, dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [dim] * num_layers + [out_dim]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, widths[1:], strict=False))

    def forward(self, tokens: Tensor) -> Tensor:
        """Takes (..., dim) and returns (..., out_dim)."""
        *hidden, last = self.layers
        for layer in hidden:
            tokens = F.relu(layer(tokens))
        return last(tokens)


class MultiScaleMaskedTransformerDecoder(nn.Module):
    """Queries attend to three feature maps in turn, each only inside the mask it predicted in the previous layer.

    Args:
        num_classes: K; the classifier has one more output for "no object".
        hidden_dim: C, a multiple of 4.
        num_queries: Q.
        num_heads: Attention heads; must divide C.
        dim_feedforward: Hidden width of the feed-forward networks.
        num_layers: Decoder layers; there is one more prediction than layers.

    Source: Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation", section 3.2,
    arXiv:2112.01527.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        hidden_dim: int = DecoderConfig.hidden_dim,
        num_queries: int = DecoderConfig.num_queries,
        num_heads: int = DecoderConfig.num_heads,
        dim_feedforward: int = DecoderConfig.dim_feedforward,
        num_layers: int = DecoderConfig.num_decoder_layers,
    ) -> None:
        super().__init__()
        layers = range(num_layers)
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, num_heads) for _ in layers
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim, num_heads) for _ in layers
        )
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(hidden_dim, dim_feedforward) for _ in layers)
        self.post_norm = nn.LayerNorm(hidden_dim)
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.level_embed = nn.Embedding(NUM_LEVELS, hidden_dim)
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, NUM_MASK_LAYERS)

    def forward(
        self, levels: Sequence[Tensor], mask_features: Tensor, depth: int | None = None
    ) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        """Predicts classes and masks.

        Args:
            levels: Three maps (B, C, ., .), coarsest first.
            mask_features: (B, C, h, w).
            depth: D, to predict masks of volumes; None: of images.

        Returns:
            `pred_logits` (B, Q, K + 1) with "no object" as last class; `pred_masks` (B, Q, h, w) logits, of volumes
            (B, Q, D, h, w); `aux_outputs`: the predictions before each layer, as dictionaries with these two keys.
        """
        memories = [level.flatten(2).transpose(1, 2) for level in levels]  # (B, cells, C)
        memories = [memory + embed for memory, embed in zip(memories, self.level_embed.weight, strict=True)]
        positions = [_position_tokens(level) for level in levels]
        if depth is not None:
            # The same place has the same position in all slices: a patch starts anywhere in its volume.
            memories = [memory.unflatten(0, (-1, depth)).flatten(1, 2) for memory in memories]  # (B, D * cells, C)
            positions = [position.repeat(1, depth, 1) for position in positions]
            mask_features = mask_features.unflatten(0, (-1, depth))
        query = self.query_feat.weight[None].expand(mask_features.shape[0], -1, -1)
        query_position = self.query_embed.weight

        queries = [self.post_norm(query)]
        masks = [self._masks(queries[-1], mask_features)]
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for index, (look_at_map, look_at_queries, feed_forward) in enumerate(layers):
            level = index % NUM_LEVELS
            allowed = attention_mask(masks[-1], levels[level].shape[-2:])
            query = look_at_map(query, query_position, memories[level], positions[level], allowed)
            query = look_at_queries(query, query_position)
            query = feed_forward(query)
            queries.append(self.post_norm(query))
            masks.append(self._masks(queries[-1], mask_features))
        logits = self.class_embed(torch.stack(queries))  # (L, B, Q, K + 1)
        *auxiliary, last = ({"pred_logits": pair[0], "pred_masks": pair[1]} for pair in zip(logits, masks, strict=True))
        return {**last, "aux_outputs": auxiliary}

    def _masks(self, query: Tensor, mask_features: Tensor) -> Tensor:
        product = "bqc,bchw->bqhw" if mask_features.ndim == _MAPS else "bqc,bdchw->bqdhw"
        return torch.einsum(product, self.mask_embed(query), mask_features)


def _position_tokens(level: Tensor) -> Tensor:
    encoding = sine_position_encoding(level.shape[-2], level.shape[-1], level.shape[1], level.device)
    return encoding.flatten(2).transpose(1, 2).to(level.dtype)  # (1, cells, C)


@torch.no_grad()
def attention_mask(mask_logits: Tensor, size: Sequence[int]) -> Tensor:
    """Computes the cells that each query may attend to: those covered by its mask, or all if there are none.

    Args:
        mask_logits: (B, Q, h, w) or (B, Q, D, h, w).
        size: (height, width) of the attended map.

    Returns:
        (B, 1, Q, [D *] height * width), True where attention is allowed, without gradient.

    Source: Cheng et al. 2022, section 3.2.1, arXiv:2112.01527.
    """
    slices = mask_logits.flatten(1, -3)  # (B, Q [* D], h, w)
    resized = F.interpolate(slices, size=tuple(size), mode="bilinear", align_corners=False)
    resized = resized.unflatten(1, mask_logits.shape[1:-2])
    # Not `resized >= 0`: probabilities of logits just below 0 round to one half, in bfloat16 for all above -0.004,
    # and released models were trained with these cells included.
    allowed = (resized.sigmoid() >= 0.5).flatten(2)
    covers_something = allowed.any(dim=-1, keepdim=True)
    return (allowed >= covers_something)[:, None]  # as `allowed | ~covers_something`, by one kernel
