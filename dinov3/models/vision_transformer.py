"""The DINOv3 vision transformer, with the names, shapes and arguments of the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dinov3.layers.attention import LinearKMaskedBias
from dinov3.layers.block import SelfAttentionBlock
from dinov3.layers.layer_scale import LayerScale
from dinov3.layers.norms import make_norm
from dinov3.layers.patch_embed import PatchEmbed
from dinov3.layers.rope_position_encoding import NormalizeCoords, RopePositionEmbedding
from dinov3.models.vit_shapes import VIT_SHAPES

ROPE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class DinoVisionTransformer(nn.Module):
    """A vision transformer with rotary positions and storage tokens, for images of any multiple of the patch size.

    Tokens are ordered as class token, storage tokens, patches row by row. Argument names and defaults are those of the
    original. The released models use other values, defined in `dinov3.hub.backbones`, among them float32 positions, the
    epsilon of "layernormbf16", and layer scales.

    Args:
        img_size: Ignored; kept for configurations that set it.
        patch_size: Side of the patches in pixels.
        in_chans: Channels of the images.
        n_storage_tokens: Number of storage (register) tokens.
        embed_dim: Channels of the tokens, D.
        depth: Number of blocks.
        num_heads: Heads of the attention.
        qkv_bias: Use a bias for queries, keys and values.
        mask_k_bias: Mask the key bias.
        proj_bias: Use a bias in the output projections of the attention.
        ffn_layer: "mlp", "swiglu", or "swiglu32", "swiglu64", "swiglu128" with the hidden width rounded up.
        ffn_ratio: Hidden width of the feed-forward layers in units of D.
        ffn_bias: Use biases in the feed-forward layers.
        norm_layer: "layernorm" (epsilon 1e-6), "layernormbf16" (1e-5) or "rmsnorm" (1e-5).
        untie_cls_and_patch_norms: Separate final norm `cls_norm` for class and storage tokens.
        untie_global_and_local_cls_norm: Separate final norm `local_cls_norm` for those of local crops; only used in
            train mode, for the second of several crops.
        layerscale_init: Initial value of the layer scales; None: no layer scales.
        drop_path_rate: Probability in [0, 1) that a branch is dropped for a sample while training, in every block.
        pos_embed_rope_dtype: "fp32", "fp16" or "bf16"; the last is imprecise and only for models trained with it.
        pos_embed_rope_normalize_coords: "separate", "max" or "min".
        pos_embed_rope_base: Largest period of the positions; this and the following: see `RopePositionEmbedding`.
        pos_embed_rope_min_period: Smallest period, instead of the base.
        pos_embed_rope_max_period: Largest period, instead of the base.
        pos_embed_rope_rescale_coords: Random scaling of the positions while training.
        pos_embed_rope_jitter_coords: Random scaling of the positions per axis while training.
        pos_embed_rope_shift_coords: Random shift of the positions while training.
        device: Device on which parameters are created; "meta": no memory.

    Raises:
        ValueError: If a name is unknown, or the numbers are incompatible.

    Source: Simeoni et al. 2025, "DINOv3", arXiv:2508.10104; Darcet et al. 2024, "Vision Transformers Need Registers",
    arXiv:2309.16588.
    """

    def __init__(  # noqa: PLR0913 - names and defaults of the original
        self,
        *,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        n_storage_tokens: int = 0,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        qkv_bias: bool = True,
        mask_k_bias: bool = False,
        proj_bias: bool = True,
        ffn_layer: str = "mlp",
        ffn_ratio: float = 4.0,
        ffn_bias: bool = True,
        norm_layer: str = "layernorm",
        untie_cls_and_patch_norms: bool = False,
        untie_global_and_local_cls_norm: bool = False,
        layerscale_init: float | None = None,
        drop_path_rate: float = 0.0,
        pos_embed_rope_dtype: str = "bf16",
        pos_embed_rope_normalize_coords: NormalizeCoords = "separate",
        pos_embed_rope_base: float | None = 100.0,
        pos_embed_rope_min_period: float | None = None,
        pos_embed_rope_max_period: float | None = None,
        pos_embed_rope_rescale_coords: float | None = None,
        pos_embed_rope_jitter_coords: float | None = None,
        pos_embed_rope_shift_coords: float | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.num_features = self.embed_dim = embed_dim
        self.n_blocks = self.num_blocks = depth
        self.in_chans = self.in_channels = in_chans
        self.num_heads, self.patch_size, self.n_storage_tokens = num_heads, patch_size, n_storage_tokens
        self._add_embedding(device)
        self.rope_embed = RopePositionEmbedding(
            embed_dim,
            num_heads=num_heads,
            normalize_coords=pos_embed_rope_normalize_coords,
            base=pos_embed_rope_base,
            min_period=pos_embed_rope_min_period,
            max_period=pos_embed_rope_max_period,
            rescale_coords=pos_embed_rope_rescale_coords,
            jitter_coords=pos_embed_rope_jitter_coords,
            shift_coords=pos_embed_rope_shift_coords,
            dtype=_rope_dtype(pos_embed_rope_dtype),
            device=device,
        )
        attention = {"qkv_bias": qkv_bias, "mask_k_bias": mask_k_bias, "proj_bias": proj_bias}
        feed_forward = {"ffn_layer": ffn_layer, "ffn_ratio": ffn_ratio, "ffn_bias": ffn_bias}
        branches = {"norm_layer": norm_layer, "init_values": layerscale_init, "drop_path": drop_path_rate}
        options = {**attention, **feed_forward, **branches, "device": device}
        self.blocks = nn.ModuleList(SelfAttentionBlock(embed_dim, num_heads, **options) for _ in range(depth))
        self.norm = make_norm(norm_layer, embed_dim, device)
        self.cls_norm = make_norm(norm_layer, embed_dim, device) if untie_cls_and_patch_norms else None
        self.local_cls_norm = make_norm(norm_layer, embed_dim, device) if untie_global_and_local_cls_norm else None
        self.head = nn.Identity()

    def _add_embedding(self, device: torch.device | str | None) -> None:
        """Creates patch embedding, prefix tokens and position embedding."""
        self.patch_embed = PatchEmbed(self.patch_size, self.in_chans, self.embed_dim, device)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim, device=device))
        if self.n_storage_tokens > 0:
            self.storage_tokens = nn.Parameter(torch.zeros(1, self.n_storage_tokens, self.embed_dim, device=device))
        self.mask_token = nn.Parameter(torch.zeros(1, self.embed_dim, device=device))

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialises all weights, for training from scratch."""
        nn.init.normal_(self.cls_token, std=0.02)
        if self.n_storage_tokens > 0:
            nn.init.normal_(self.storage_tokens, std=0.02)
        nn.init.zeros_(self.mask_token)
        self.rope_embed.reset_periods()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, LinearKMaskedBias):
                module.reset_bias_mask()
            elif isinstance(module, (nn.LayerNorm, nn.RMSNorm, LayerScale, PatchEmbed)):
                module.reset_parameters()

    def forward(
        self,
        x: Tensor | Sequence[Tensor],
        masks: Tensor | Sequence[Tensor | None] | None = None,
        *,
        is_training: bool = False,
    ) -> Tensor | list[Tensor] | dict[str, Any] | list[dict[str, Any]]:
        """Returns the class token of the last block, (B, D), or with `is_training` the result of `forward_features`.

        A sequence of images of several sizes gives a list.
        """
        features = self.forward_features(x, masks)
        if is_training:
            return features
        if isinstance(features, list):
            return [self.head(entry["x_norm_clstoken"]) for entry in features]
        return self.head(features["x_norm_clstoken"])

    def forward_features(
        self, x: Tensor | Sequence[Tensor], masks: Tensor | Sequence[Tensor | None] | None = None
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Computes all tokens of the last block.

        Args:
            x: Images, (B, in_chans, H, W), or several such tensors with different sizes.
            masks: Patches to replace by the mask token, bool (B, number of patches); or None. A sequence for several
                images.

        Returns:
            A dict, or one for each of several images: after the final norm "x_norm_clstoken" (B, D),
            "x_storage_tokens" (B, n_storage_tokens, D) and "x_norm_patchtokens" (B, patches, D); before it "x_prenorm"
            (B, all tokens, D); and "masks" as given.
        """
        if isinstance(x, Tensor):
            return self._features(x, masks, self._prefix_norm())
        return self.forward_features_list(x, [None] * len(x) if masks is None else masks)

    def forward_features_list(
        self, x_list: Sequence[Tensor], masks_list: Sequence[Tensor | None]
    ) -> list[dict[str, Any]]:
        """Like `forward_features`, for crops of several sizes: global ones first, local ones second."""
        return [
            self._features(image, mask, self._prefix_norm(is_local=index == 1))
            for index, (image, mask) in enumerate(zip(x_list, masks_list, strict=True))
        ]

    def get_intermediate_layers(
        self,
        x: Tensor,
        *,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        return_extra_tokens: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, ...], ...]:
        """Returns patch tokens after selected blocks. Blocks after the last selected one are not computed.

        Args:
            x: Images, (B, in_chans, H, W).
            n: The last n blocks, or 0-based block indices. The result is in block order.
            reshape: Return maps (B, D, H / patch_size, W / patch_size) instead of tokens (B, patches, D).
            return_class_token: Also return the class token, (B, D), of every block.
            return_extra_tokens: Also return the storage tokens, (B, n_storage_tokens, D), of every block.
            norm: Apply the final norm to every block's output.

        Returns:
            For every block the patch tokens; or a tuple of patch tokens, class token and storage tokens, as requested.

        Raises:
            ValueError: If a block does not exist or is requested twice, or no block is requested.
        """
        outputs = self._run_blocks(x, None, self._indices(n))
        if norm:
            outputs = [self._normalised(tokens, self._prefix_norm()) for tokens in outputs]
        patches = [tokens[:, 1 + self.n_storage_tokens :] for tokens in outputs]
        if reshape:
            size = (x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size)
            patches = [layer.transpose(1, 2).unflatten(-1, size).contiguous() for layer in patches]
        columns = [patches]
        if return_class_token:
            columns.append([tokens[:, 0] for tokens in outputs])
        if return_extra_tokens:
            columns.append([tokens[:, 1 : 1 + self.n_storage_tokens] for tokens in outputs])
        return tuple(patches) if len(columns) == 1 else tuple(zip(*columns, strict=True))

    def prepare_tokens_with_masks(self, x: Tensor, masks: Tensor | None = None) -> tuple[Tensor, tuple[int, int]]:
        """Computes the input of the first block.

        Args:
            x: Images, (B, in_chans, H, W).
            masks: Patches to replace by the mask token, bool (B, patches).

        Returns:
            All tokens (B, 1 + n_storage_tokens + patches, D), and height and width of the patch grid.
        """
        embedded = self.patch_embed(x)
        batch, height, width, _ = embedded.shape
        patches, class_token = embedded.flatten(1, 2), self.cls_token
        if masks is None:
            class_token = class_token + 0 * self.mask_token  # DDP requires that all parameters are used
        else:
            patches = torch.where(masks.unsqueeze(-1), self.mask_token.to(patches.dtype), patches)
        prefix = [class_token, self.storage_tokens] if self.n_storage_tokens > 0 else [class_token]
        return torch.cat([*(token.expand(batch, -1, -1) for token in prefix), patches], dim=1), (height, width)

    def _features(self, image: Tensor, masks: Tensor | None, prefix_norm: nn.Module) -> dict[str, Any]:
        (tokens,) = self._run_blocks(image, masks, [self.n_blocks - 1])
        normalised = self._normalised(tokens, prefix_norm)
        return {
            "x_norm_clstoken": normalised[:, 0],
            "x_storage_tokens": normalised[:, 1 : 1 + self.n_storage_tokens],
            "x_norm_patchtokens": normalised[:, 1 + self.n_storage_tokens :],
            "x_prenorm": tokens,
            "masks": masks,
        }

    def _run_blocks(self, image: Tensor, masks: Tensor | None, indices: Sequence[int]) -> list[Tensor]:
        """Returns all tokens after each of the given blocks; indices must ascend."""
        tokens, (height, width) = self.prepare_tokens_with_masks(image, masks)
        layout = (height, width, 1 + self.n_storage_tokens)
        rotation = None if self.rope_embed.is_random else self.rope_embed.rotation(*layout)
        outputs = []
        for index in range(indices[-1] + 1):
            # A random rotation is drawn for every block, as the original does.
            tokens = self.blocks[index](tokens, rotation or self.rope_embed.rotation(*layout))
            if index in indices:
                outputs.append(tokens)
        return outputs

    def _indices(self, n: int | Sequence[int]) -> list[int]:
        indices = list(range(self.n_blocks - n, self.n_blocks)) if isinstance(n, int) else sorted(n)
        if not indices or len(set(indices)) < len(indices) or indices[0] < 0 or indices[-1] >= self.n_blocks:
            raise ValueError(
                f"n={n} was given, of a model with {self.n_blocks} blocks; give how many of the last blocks are wanted "
                f"(1 to {self.n_blocks}), or different block indices from 0 to {self.n_blocks - 1}."
            )
        return indices

    def _prefix_norm(self, is_local: bool = False) -> nn.Module:
        """The final norm of class and storage tokens."""
        if is_local and self.training and self.local_cls_norm is not None:
            return self.local_cls_norm
        return self.norm if self.cls_norm is None else self.cls_norm

    def _normalised(self, tokens: Tensor, prefix_norm: nn.Module) -> Tensor:
        if prefix_norm is self.norm:
            return self.norm(tokens)
        num_prefix = 1 + self.n_storage_tokens
        return torch.cat((prefix_norm(tokens[:, :num_prefix]), self.norm(tokens[:, num_prefix:])), dim=1)


def _rope_dtype(name: str) -> torch.dtype:
    if name not in ROPE_DTYPES:
        raise ValueError(f"pos_embed_rope_dtype {name!r} is unknown; choose one of {', '.join(ROPE_DTYPES)}.")
    return ROPE_DTYPES[name]


def vit_small(patch_size: int = 16, **options: Any) -> DinoVisionTransformer:
    """12 blocks of 384 channels; like the others, accepts any argument of `DinoVisionTransformer`."""
    return _of_shape("vit_small", patch_size, options)


def vit_base(patch_size: int = 16, **options: Any) -> DinoVisionTransformer:
    """12 blocks of 768 channels."""
    return _of_shape("vit_base", patch_size, options)


def vit_large(patch_size: int = 16, **options: Any) -> DinoVisionTransformer:
    """24 blocks of 1024 channels."""
    return _of_shape("vit_large", patch_size, options)


def vit_so400m(patch_size: int = 16, **options: Any) -> DinoVisionTransformer:
    """27 blocks of 1152 channels."""
    return _of_shape("vit_so400m", patch_size, options)


def vit_huge2(patch_size: int = 16, **options: Any) -> DinoVisionTransformer:
    """32 blocks of 1280 channels."""
    return _of_shape("vit_huge2", patch_size, options)


def vit_giant2(patch_size: int = 16, **options: Any) -> DinoVisionTransformer:
    """40 blocks of 1536 channels."""
    return _of_shape("vit_giant2", patch_size, options)


def vit_7b(patch_size: int = 16, **options: Any) -> DinoVisionTransformer:
    """40 blocks of 4096 channels."""
    return _of_shape("vit_7b", patch_size, options)


def _of_shape(name: str, patch_size: int, options: Mapping[str, Any]) -> DinoVisionTransformer:
    return DinoVisionTransformer(patch_size=patch_size, **VIT_SHAPES[name]._asdict(), **options)
