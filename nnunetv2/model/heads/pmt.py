"""PMT, the plain mask transformer: separate blocks process queries and patches of a frozen backbone.

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
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head import BackboneSpec, Features, QueryHead, register_head
from nnunetv2.model.head_config import QueryHeadConfig
from nnunetv2.model.mask_resolution import default_upscale_blocks, mask_stride
from nnunetv2.model.mask_transformer_parts import (
    MaskSwitches,
    annealed_probability,
    hidden_patches,
    mask_mlp,
    upscale_layers,
)
from nnunetv2.model.volume_queries import mask_logits, masks_of_slices, of_volumes, shared_queries

PROJECTIONS = ("mlp", "linear", "none")
_ROPE_BASE = 100.0  # as DINOv3

# When masked attention is annealed, in fractions of the training: the first layer from the start, the
# others one after the other. Source: PMT's runs on ADE20K and COCO; 0.15 are the 3000 steps of the shorter run.
_FIRST_ANNEALING = (0.0, 0.15)
_LATER_STARTS = (4 / 15, 2 / 3)
_LATER_LENGTH = 1 / 6


@register_head("pmt")
class PlainMaskTransformer(QueryHead):
    """A small transformer on the fused tokens of four blocks and the queries, for a frozen backbone.

    Like EoMT it has no convolutional decoder, but it leaves the backbone's blocks unchanged, so that several models can
    share one frozen backbone. In training, each query attends only to the patches of the mask that it predicted before
    the layer. This restriction is annealed and is off for the last sixth of the training.

    Source: Cavagnero et al. 2026, "PMT: Plain Mask Transformer for Image and Video Segmentation with Frozen Vision
    Encoders", arXiv:2603.25398.
    """

    @dataclass
    class Config(QueryHeadConfig):
        """Backbone, followed by a transformer of queries and patches."""

        # As published; AdamW, weight decay 0.05 and gradient clipping at 0.01 are our defaults for query heads.
        training: ClassVar[Mapping[str, Any]] = {"lr": 2e-4}

        num_layers: int = 6
        """Layers of the transformer after the backbone."""
        hidden_dim: int | None = None
        """Hidden width of the layers' feed-forward networks; null: the backbone's width."""
        lateral_bn: bool = True
        """Batch norm on the tokens of each backbone block that is read."""
        lateral_projection: str = "mlp"
        """Projection of each block before the sum: mlp, linear or none."""
        residual_projection: bool = True
        """Add the projection to the tokens; false: replace the tokens."""
        num_upscale_blocks: int | None = None
        """How many times the patch resolution is doubled for the masks; null: until masks have at least a quarter of
        the image's resolution, 2 for patches of 14 or 16."""

        def __post_init__(self) -> None:
            super().__post_init__()
            require_range("model.num_layers", self.num_layers, 1)
            if self.hidden_dim is not None:
                require_range("model.hidden_dim", self.hidden_dim, 1)
            require_choice("model.lateral_projection", self.lateral_projection, PROJECTIONS)
            if self.num_upscale_blocks is not None:
                require_range("model.num_upscale_blocks", self.num_upscale_blocks, 0, 4)

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return mask_stride(shape.patch_size, self.num_upscale_blocks)

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
        # Without a projection, the residual would only double the tokens.
        self.is_residual = config.residual_projection and config.lateral_projection != "none"
        self.scalers = nn.ParameterList(nn.Parameter(torch.ones(dim)) for _ in levels)
        self.q = nn.Embedding(config.num_queries, dim)
        self.blocks = nn.ModuleList(_Layer(dim, spec.num_heads, config.hidden_dim or dim) for _ in layers)
        self.decoder_norm = nn.LayerNorm(dim)
        num_upscale_blocks = config.num_upscale_blocks
        if num_upscale_blocks is None:
            num_upscale_blocks = default_upscale_blocks(spec.patch_size)
        self.upscale = nn.Sequential(*(_upscale_block(dim) for _ in range(num_upscale_blocks)))
        self.mask_head = mask_mlp(dim)
        self.class_head = nn.Linear(dim, num_classes + 1)
        self.rope = RopePositionEmbedding(dim, num_heads=spec.num_heads, base=_ROPE_BASE)
        self.register_buffer("attn_mask_probs", torch.ones(config.num_layers))
        self._switches = MaskSwitches()

    def set_training_progress(self, progress: float) -> None:
        """Sets the probability of masked attention for each layer."""
        probabilities = [annealed_probability(progress, *part) for part in annealing(len(self.blocks))]
        self._switches.set(self.attn_mask_probs, probabilities)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._switches.read(self.attn_mask_probs)

    def forward(self, features: Features) -> dict[str, Any]:
        grid, depth = features.maps[0].shape[-2:], features.depth
        tokens = self._fused(features)
        tokens = torch.cat((self.q.weight.expand(len(tokens), -1, -1), tokens), dim=1)
        rotation = self._rotation(features.rotation, grid)
        predictions = []
        probabilities = self._switches.probabilities(self.attn_mask_probs, self.training)
        for probability, block in zip(probabilities, self.blocks, strict=True):
            mask = None
            if features.needs_aux or probability is not None:
                predictions.append(self._predict(tokens, grid, depth))
            if probability is not None:
                mask = self._attention_mask(predictions[-1]["pred_masks"].detach(), grid, probability, depth)
            tokens = block(tokens, rotation, mask)
            if depth is not None:
                queries = shared_queries(tokens[:, : self.q.num_embeddings], depth)
                tokens = torch.cat((queries, tokens[:, self.q.num_embeddings :]), dim=1)
        return {**self._predict(tokens, grid, depth), "aux_outputs": predictions}

    @property
    def _num_unplaced(self) -> int:
        """Number of tokens without a position in the image, Q + P."""
        return self.q.num_embeddings + self.spec.num_prefix_tokens

    def _fused(self, features: Features) -> Tensor:
        """Sums the tokens (B, P + N, D) over the backbone blocks."""
        outputs = zip(features.prefix_tokens, features.maps, strict=True)
        layers = zip(self.bn, self.lateral_projections, self.scalers, strict=True)
        fused = []
        for (prefix, patches), (norm, project, scale) in zip(outputs, layers, strict=True):
            tokens = norm(torch.cat((prefix.transpose(1, 2), patches.flatten(2)), dim=2)).transpose(1, 2)
            projected = project(tokens)
            fused.append((tokens + projected if self.is_residual else projected) * scale)
        return torch.stack(fused).sum(dim=0)

    def _rotation(self, rotation: Tensor | None, grid: Sequence[int]) -> Rotation:
        """Rotary positions of the patches from the backbone, or DINOv3's if the backbone has absolute positions."""
        if rotation is None:
            return self.rope.rotation(*grid, self._num_unplaced)
        return make_rotation(*rotation.chunk(2, dim=-1), self._num_unplaced)

    def _predict(self, tokens: Tensor, grid: Sequence[int], depth: int | None) -> dict[str, Tensor]:
        """Predicts classes and masks from the current tokens."""
        tokens = self.decoder_norm(tokens)
        queries = of_volumes(tokens[:, : self.q.num_embeddings], depth)
        patches = tokens[:, self._num_unplaced :].transpose(1, 2).unflatten(2, grid)
        masks = mask_logits(self.mask_head(queries), self.upscale(patches), depth)
        return {"pred_logits": self.class_head(queries), "pred_masks": masks}

    def _attention_mask(
        self, masks: Tensor, grid: Sequence[int], probability: Tensor, depth: int | None = None
    ) -> Tensor:
        """(B, 1, T, T): false where a query must not attend to a patch."""
        masks = masks_of_slices(masks)
        first_patch = self._num_unplaced
        size = first_patch + math.prod(grid)
        mask = torch.ones(len(masks), 1, size, size, dtype=torch.bool, device=masks.device)
        mask[:, 0, : masks.shape[1], first_patch:] = ~hidden_patches(masks, grid, probability, depth)
        return mask


def annealing(num_layers: int) -> list[tuple[float, float]]:
    """Annealing start and length of each layer, in fractions of the training; published for six layers."""
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
    """A pre-norm transformer block with layer scale on its branches."""

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
    """Multi-head self-attention with rotary positions; layers are named as in PMT's checkpoints."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim, bias=False)  # softmax is invariant to a bias on the keys
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
    """A learned factor per channel that starts at 1, named as in PMT's checkpoints."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(dim))

    def forward(self, branch: Tensor) -> Tensor:
        return branch * self.lambda1
