"""EoMT: the last blocks of the vision transformer process the queries; no adapter, no decoder.

Shapes: B batch, D embed dim, p patch size, P prefix tokens, N = HW/p^2 patch tokens, Q queries, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dinov3.utils.yaml_config import require_range
from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.head import BackboneSpec, Features, QueryHead, register_head
from nnunetv2.model.head_config import QueryHeadConfig
from nnunetv2.model.mask_resolution import default_upscale_blocks, mask_stride, unnamed_upscale_blocks
from nnunetv2.model.mask_transformer_parts import (
    MaskSwitches,
    annealed_probability,
    hidden_patches,
    mask_mlp,
    upscale_layers,
)
from nnunetv2.model.volume_queries import mask_logits, masks_of_slices, of_volumes, shared_queries

_ANNEALED_PART = 0.8  # of the training; the rest runs without masked attention, as prediction does
_JOINT_BLOCKS = {12: 3, 24: 4, 32: 4, 40: 5}


@register_head("eomt")
class EoMT(QueryHead):
    """Queries run through the last blocks of the backbone itself, with three small heads and no decoder.

    In training, each query attends only to the patches of the mask that it predicted before the block. This restriction
    is annealed block by block, starting with the first, and is off for the last fifth of the training.

    Source: Kerssies et al. 2025, "Your ViT is Secretly an Image Segmentation Model", sections 3.2 and 3.3,
    arXiv:2503.19108.
    """

    @dataclass
    class Config(QueryHeadConfig):
        """Backbone whose last blocks carry the queries."""

        network_class: ClassVar[str] = "nnunetv2.model.model_eomt.EoMTSegmentationModel"
        num_blocks: ClassVar[int] = 0

        num_joint_blocks: int | None = None
        """Number of last backbone blocks that process the queries, for eomt; null: 3 of 12, 4 of 24 or 32, 5 of 40."""
        num_upscale_blocks: int | None = None
        """How many times the patch resolution is doubled for the masks, for eomt; null: until masks have at least a
        quarter of the image's resolution, 2 for patches of 14 or 16."""

        def __post_init__(self) -> None:
            QueryHeadConfig.__post_init__(self)
            if self.num_upscale_blocks is not None:
                require_range("model.num_upscale_blocks", self.num_upscale_blocks, 0, 4)

        def check_backbone(self, shape: BackboneShape, place: str) -> None:
            if self.num_joint_blocks is not None and not 1 <= self.num_joint_blocks <= shape.depth:
                raise UsageError(
                    f"model.num_joint_blocks={self.num_joint_blocks} must be between 1 and {shape.depth}, the blocks "
                    f"of {place}"
                )

        def logit_stride(self, shape: BackboneShape) -> float | None:
            return mask_stride(shape.patch_size, self.num_upscale_blocks)

        def network_settings(self, shape: BackboneShape, trained: Mapping[str, Any]) -> dict[str, Any]:
            settings = QueryHeadConfig.network_settings(self, shape, trained)
            chosen, unnamed = settings.pop("num_upscale_blocks"), unnamed_upscale_blocks(shape.patch_size)
            if chosen is None and trained:
                chosen = trained.get("num_upscale_blocks", unnamed)
            elif chosen is None:
                chosen = default_upscale_blocks(shape.patch_size)
            return settings if chosen == unnamed else settings | {"num_upscale_blocks": chosen}

    classifier: ClassVar[tuple[str, ...]] = ("class_head",)
    part_labels: ClassVar[dict[str, str]] = {"encoder": "backbone", "query": "queries", "upscale": "upscaling"}
    owns_backbone = True

    def __init__(
        self, config: Config, spec: BackboneSpec, num_classes: int, backbone: Backbone, blocks: Sequence[int]
    ) -> None:
        super().__init__(config, spec, num_classes)
        num_joint_blocks = config.num_joint_blocks
        if num_joint_blocks is None:
            num_joint_blocks = _JOINT_BLOCKS.get(spec.num_blocks, max(1, spec.num_blocks // 4))
        if not 1 <= num_joint_blocks <= spec.num_blocks:
            raise ValueError(f"model.num_joint_blocks={num_joint_blocks} must be 1 to {spec.num_blocks}")
        dim = spec.embed_dim
        self.encoder = backbone
        self.first_joint_block = spec.num_blocks - num_joint_blocks
        self.query = nn.Embedding(config.num_queries, dim)
        num_stages = config.num_upscale_blocks
        if num_stages is None:
            num_stages = default_upscale_blocks(spec.patch_size)
        self.upscale = nn.Sequential(*(nn.Sequential(*upscale_layers(dim)) for _ in range(num_stages)))
        self.mask_head = mask_mlp(dim)
        self.class_head = nn.Linear(dim, num_classes + 1)
        self.register_buffer("mask_probability", torch.ones(num_joint_blocks))
        self._switches = MaskSwitches()

    @property
    def backbone(self) -> Backbone:
        return self.encoder

    @property
    def num_fused_maps(self) -> int:
        return len(self.mask_probability)

    def set_training_progress(self, progress: float) -> None:
        """Sets the probability of masked attention for each joint block."""
        probabilities = annealed_probabilities(len(self.mask_probability), progress)
        self._switches.set(self.mask_probability, probabilities)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._switches.read(self.mask_probability)

    def forward(self, features: Features) -> dict[str, Any]:
        image, depth = features.image, features.depth
        grid = [side // self.encoder.patch_size for side in image.shape[-2:]]
        tokens, rotation = self._encode_patches(image)
        queries = self.query.weight.expand(len(image), -1, -1)
        tokens = torch.cat((tokens, queries), dim=1)
        if rotation is not None:
            rotation = without_rotation(rotation, queries.shape[1])
        predictions = []
        probabilities = self._switches.probabilities(self.mask_probability, self.training)
        for number, (probability, block) in enumerate(zip(probabilities, self._joint_blocks(), strict=True)):
            mask = None
            if features.needs_aux or probability is not None:
                predictions.append(self._predict(tokens, grid, depth))
            if probability is not None:
                mask = self._attention_mask(predictions[-1]["pred_masks"].detach(), grid, probability, depth)
            tokens = self.encoder.run_block(block, tokens, rotation, mask)
            if depth is not None:
                tokens = self._mixed(tokens, grid, features, number)
        return {**self._predict(tokens, grid, depth), "aux_outputs": predictions}

    def _joint_blocks(self) -> range:
        return range(self.first_joint_block, self.encoder.num_blocks)

    def _encode_patches(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        # Without trainable parameters, no activations of the first blocks are needed: queries only enter later.
        needs_gradient = self.encoder.is_trainable or image.requires_grad
        with torch.set_grad_enabled(torch.is_grad_enabled() and needs_gradient):
            tokens, rotation = self.encoder.embed(image)
            for block in range(self.first_joint_block):
                tokens = self.encoder.run_block(block, tokens, rotation)
        return tokens, rotation

    def _mixed(self, tokens: Tensor, grid: list[int], features: Features, number: int) -> Tensor:
        """Lets the slices of a volume share their queries, and mixes their patches along the depth."""
        num_queries = self.query.num_embeddings
        first = self.encoder.num_prefix_tokens
        prefix, patches, queries = tokens.split([first, tokens.shape[1] - first - num_queries, num_queries], dim=1)
        if features.fuse is not None:
            fused = features.fuse(number, patches.transpose(1, 2).unflatten(2, grid))
            patches = fused.flatten(2).transpose(1, 2)
        return torch.cat((prefix, patches, shared_queries(queries, features.depth)), dim=1)

    def _predict(self, tokens: Tensor, grid: list[int], depth: int | None) -> dict[str, Tensor]:
        """Predicts classes and masks from the current tokens."""
        tokens = self.encoder.final_norm(tokens)
        prefix, num_patches = self.encoder.num_prefix_tokens, grid[0] * grid[1]
        patches = tokens[:, prefix : prefix + num_patches].transpose(1, 2).unflatten(2, grid)
        queries = of_volumes(tokens[:, prefix + num_patches :], depth)
        masks = mask_logits(self.mask_head(queries), self.upscale(patches), depth)
        return {"pred_logits": self.class_head(queries), "pred_masks": masks}

    def _attention_mask(self, masks: Tensor, grid: list[int], probability: Tensor, depth: int | None = None) -> Tensor:
        """(B, 1, P+N+Q, P+N+Q): minus infinity where a query must not attend to a patch, else 0."""
        masks = masks_of_slices(masks)
        prefix, num_patches = self.encoder.num_prefix_tokens, grid[0] * grid[1]
        size = prefix + num_patches + masks.shape[1]
        mask = torch.zeros(len(masks), 1, size, size, device=masks.device, dtype=masks.dtype)
        mask[:, 0, prefix + num_patches :, prefix : prefix + num_patches].masked_fill_(
            hidden_patches(masks, grid, probability, depth), float("-inf")
        )
        return mask


def annealed_probabilities(num_blocks: int, progress: float) -> list[float]:
    """Returns the probability of masked attention for each joint block; the blocks are annealed one after the other.

    Args:
        num_blocks: joint blocks.
        progress: completed fraction of the training, 0 to 1.
    """
    length = _ANNEALED_PART / num_blocks
    return [annealed_probability(progress, block * length, length) for block in range(num_blocks)]


def without_rotation(rotation: Tensor, num_tokens: int) -> Tensor:
    """Appends unrotated tokens (sine 0, cosine 1) to sines and cosines (N, 2d)."""
    sine, cosine = rotation.new_zeros(num_tokens, rotation.shape[-1]).chunk(2, dim=-1)
    return torch.cat((rotation, torch.cat((sine, cosine + 1), dim=-1)))
