"""PMT, the plain mask transformer: queries and patches of a frozen transformer run through blocks of their own.

Shapes: B batch, D embed dim, p patch size, P prefix tokens, N = HW/p^2 patch tokens, Q queries, K classes,
T = Q + P + N tokens in that order.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov3.layers.rope_position_encoding import RopePositionEmbedding, Rotation, make_rotation, rotate
from dinov3.utils.yaml_config import require_choice, require_range
from nnunetv2.model.head import BackboneSpec, Features, QueryHead, register_head
from nnunetv2.model.head_config import QueryHeadConfig
from nnunetv2.model.mask_transformer_parts import (
    annealed_probability,
    hidden_patches,
    mask_mlp,
    mask_probabilities,
    upscale_layers,
)

PROJECTIONS = ("mlp", "linear", "none")
_COARSEST_STRIDE = 4  # masks are predicted at a quarter of the image, or finer
_ROPE_BASE = 100.0  # as DINOv3

# When queries stop being restricted to their masks, in parts of the training: the first layer from the start, the
# others one after the other. Source: PMT's trainings on ADE20K and COCO; 0.15 are the 3000 steps of the shorter one.
_FIRST_ANNEALING = (0.0, 0.15)
_LATER_STARTS = (4 / 15, 2 / 3)
_LATER_LENGTH = 1 / 6


@register_head("pmt")
class PlainMaskTransformer(QueryHead):
    """Fused tokens of four blocks and the queries in a small transformer; for a backbone that stays frozen.

    Like EoMT it has no convolutional decoder, but it leaves the backbone's blocks alone, so that one frozen backbone
    can serve several models. In training, the queries attend to the patches of the mask that they predicted before
    each layer; that restriction is given up step by step until the last sixth of the training does without.

    Source: Cavagnero et al. 2026, "PMT: Plain Mask Transformer for Image and Video Segmentation with Frozen Vision
    Encoders", arXiv:2603.25398.
    """

    @dataclass
    class Config(QueryHeadConfig):
        """Backbone and a transformer of queries and patches behind it."""

        # As published, with AdamW, a weight decay of 0.05 and gradients limited to 0.01, our defaults for queries.
        training: ClassVar[Mapping[str, Any]] = {"lr": 2e-4}

        num_layers: int = 6
        """Layers of the transformer behind the backbone."""
        hidden_dim: int | None = None
        """Hidden width of the layers' feed-forward networks; null: the backbone's width."""
        lateral_bn: bool = True
        """Batch normalisation of the tokens of each block of the backbone that is read."""
        lateral_projection: str = "mlp"
        """What learns to fuse these blocks, before they are summed: mlp, linear or none."""
        residual_projection: bool = True
        """Add the projection to the tokens; false: replace them."""
        num_upscale_blocks: int | None = None
        """How often the patches' resolution is doubled for the masks; null: until a mask has at least a quarter of the
        image's resolution, 2 for patches of 14 or 16."""

        def __post_init__(self) -> None:
            super().__post_init__()
            require_range("model.num_layers", self.num_layers, 1)
            if self.hidden_dim is not None:
                require_range("model.hidden_dim", self.hidden_dim, 1)
            require_choice("model.lateral_projection", self.lateral_projection, PROJECTIONS)
            if self.num_upscale_blocks is not None:
                require_range("model.num_upscale_blocks", self.num_upscale_blocks, 0, 4)

    classifier: ClassVar[tuple[str, ...]] = ("class_head",)
    part_labels: ClassVar[dict[str, str]] = {
        "bn": "lateral norms",
        "scalers": "lateral scales",
        "q": "queries",
        "blocks": "mask transformer",
        "upscale": "upscaling",
    }
    reads_rotation = True

    def __init__(self, config: Config, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        dim = spec.embed_dim
        levels, layers = range(config.num_blocks), range(config.num_layers)
        self.bn = nn.ModuleList(nn.BatchNorm1d(dim) if config.lateral_bn else nn.Identity() for _ in levels)
        self.lateral_projections = nn.ModuleList(_projection(config.lateral_projection, dim) for _ in levels)
        # Tokens that are not projected would only be doubled.
        self.is_residual = config.residual_projection and config.lateral_projection != "none"
        self.scalers = nn.ParameterList(nn.Parameter(torch.ones(dim)) for _ in levels)
        self.q = nn.Embedding(config.num_queries, dim)
        self.blocks = nn.ModuleList(_Layer(dim, spec.num_heads, config.hidden_dim or dim) for _ in layers)
        self.decoder_norm = nn.LayerNorm(dim)
        num_upscale_blocks = config.num_upscale_blocks
        if num_upscale_blocks is None:
            num_upscale_blocks = max(1, math.ceil(math.log2(spec.patch_size / _COARSEST_STRIDE)))
        self.upscale = nn.Sequential(*(_upscale_block(dim) for _ in range(num_upscale_blocks)))
        self.mask_head = mask_mlp(dim)
        self.class_head = nn.Linear(dim, num_classes + 1)
        self.rope = RopePositionEmbedding(dim, num_heads=spec.num_heads, base=_ROPE_BASE)
        self.register_buffer("attn_mask_probs", torch.ones(config.num_layers))

    def set_training_progress(self, progress: float) -> None:
        """Sets how probable it is in each layer that a query is restricted to its mask."""
        probabilities = [annealed_probability(progress, *part) for part in annealing(len(self.blocks))]
        self.attn_mask_probs.copy_(torch.tensor(probabilities), non_blocking=True)

    def forward(self, features: Features) -> dict[str, Any]:
        grid = features.maps[0].shape[-2:]
        tokens = self._fused(features)
        tokens = torch.cat((self.q.weight.expand(len(tokens), -1, -1), tokens), dim=1)
        rotation = self._rotation(features.rotation, grid)
        predictions = []
        probabilities = mask_probabilities(self.attn_mask_probs, self.training)
        for probability, block in zip(probabilities, self.blocks, strict=True):
            predictions.append(self._predict(tokens, grid))
            mask = None
            if probability is not None:
                mask = self._attention_mask(predictions[-1]["pred_masks"].detach(), grid, probability)
            tokens = block(tokens, rotation, mask)
        return {**self._predict(tokens, grid), "aux_outputs": predictions}

    @property
    def _num_unplaced(self) -> int:
        """Tokens without a place in the image, Q + P."""
        return self.q.num_embeddings + self.spec.num_prefix_tokens

    def _fused(self, features: Features) -> Tensor:
        """(B, P + N, D) tokens: the sum over the blocks of the backbone."""
        outputs = zip(features.prefix_tokens, features.maps, strict=True)
        layers = zip(self.bn, self.lateral_projections, self.scalers, strict=True)
        fused = []
        for (prefix, patches), (norm, project, scale) in zip(outputs, layers, strict=True):
            tokens = norm(torch.cat((prefix.transpose(1, 2), patches.flatten(2)), dim=2)).transpose(1, 2)
            projected = project(tokens)
            fused.append((tokens + projected if self.is_residual else projected) * scale)
        return torch.stack(fused).sum(dim=0)

    def _rotation(self, rotation: Tensor | None, grid: Sequence[int]) -> Rotation:
        """The backbone's positions of the patches, or those of DINOv3 where it has absolute ones."""
        if rotation is None:
            return self.rope.rotation(*grid, self._num_unplaced)
        return make_rotation(*rotation.chunk(2, dim=-1), self._num_unplaced)

    def _predict(self, tokens: Tensor, grid: Sequence[int]) -> dict[str, Tensor]:
        """Classes and masks that the tokens stand for now."""
        tokens = self.decoder_norm(tokens)
        queries = tokens[:, : self.q.num_embeddings]
        patches = tokens[:, self._num_unplaced :].transpose(1, 2).unflatten(2, grid)
        masks = torch.einsum("bqd,bdhw->bqhw", self.mask_head(queries), self.upscale(patches))
        return {"pred_logits": self.class_head(queries), "pred_masks": masks}

    def _attention_mask(self, masks: Tensor, grid: Sequence[int], probability: Tensor) -> Tensor:
        """(B, 1, T, T): false where a query may not attend to a patch."""
        first_patch = self._num_unplaced
        size = first_patch + math.prod(grid)
        mask = torch.ones(len(masks), 1, size, size, dtype=torch.bool, device=masks.device)
        mask[:, 0, : masks.shape[1], first_patch:] = ~hidden_patches(masks, grid, probability)
        return mask


def annealing(num_layers: int) -> list[tuple[float, float]]:
    """When each layer gives up its masks: start and length in parts of the training; published for six layers."""
    first, last = _LATER_STARTS
    step = (last - first) / max(1, num_layers - 2)
    return [_FIRST_ANNEALING, *((first + layer * step, _LATER_LENGTH) for layer in range(num_layers - 1))]


def _projection(kind: str, dim: int) -> nn.Module:
    if kind == "mlp":
        return nn.Sequential(nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim))
    return nn.Linear(dim, dim) if kind == "linear" else nn.Identity()


def _upscale_block(dim: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(zip(("conv1", "act", "conv2", "norm"), upscale_layers(dim), strict=True)))


class _Layer(nn.Module):
    """A pre-norm transformer block whose branches have a learned factor per channel."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = _Attention(dim, num_heads)
        self.layer_scale1 = _LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            OrderedDict(up_proj=nn.Linear(dim, hidden_dim), act=nn.GELU(), down_proj=nn.Linear(hidden_dim, dim))
        )
        self.layer_scale2 = _LayerScale(dim)

    def forward(self, tokens: Tensor, rotation: Rotation, mask: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D); the mask (B, 1, T, T) is true where a token may attend to another."""
        tokens = tokens + self.layer_scale1(self.attention(self.norm1(tokens), rotation, mask))
        return tokens + self.layer_scale2(self.mlp(self.norm2(tokens)))


class _Attention(nn.Module):
    """Multi-head self-attention with rotary positions; its layers have the names of PMT's files."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim, bias=False)  # the softmax would take a bias of the keys away again
        self.v_proj = nn.Linear(dim, dim)
        self.o_proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, rotation: Rotation, mask: Tensor | None) -> Tensor:
        split = (self.num_heads, -1)
        query_key = torch.stack((self.q_proj(tokens), self.k_proj(tokens)), dim=2).unflatten(-1, split)
        query, key = rotate(query_key, rotation).transpose(1, 3).unbind(2)  # each (B, heads, T, D / heads)
        value = self.v_proj(tokens).unflatten(-1, split).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class _LayerScale(nn.Module):
    """A learned factor per channel, which starts at 1 and has the name of PMT's files."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(dim))

    def forward(self, branch: Tensor) -> Tensor:
        return branch * self.lambda1
