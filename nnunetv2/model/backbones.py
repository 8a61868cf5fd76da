"""Vision transformers behind one interface: features at chosen blocks, and freezing.

A family (`dinov3`) is a table of sizes; a size names the timm model that is built and the tag of its released weights.
Adding a family is adding a table.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2.errors import UsageError


@dataclass(frozen=True)
class BackboneSize:
    """One row of a family's table."""

    timm_name: str
    """Model of timm that is built."""
    weights: str | None
    """Tag of the released weights on timm's hub; None: there are none."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments that change the timm model."""


_LVD = "lvd1689m"

FAMILIES: dict[str, dict[str, BackboneSize]] = {
    "dinov3": {
        # An unreleased miniature of the same architecture, for demos and tests without a GPU.
        "tiny": BackboneSize(
            "vit_small_patch16_dinov3", None, {"embed_dim": 128, "depth": 4, "num_heads": 4, "init_values": 0.1}
        ),
        "small": BackboneSize("vit_small_patch16_dinov3", _LVD),
        "small_plus": BackboneSize("vit_small_plus_patch16_dinov3", _LVD),
        "base": BackboneSize("vit_base_patch16_dinov3", _LVD),
        "large": BackboneSize("vit_large_patch16_dinov3", _LVD),
        "huge_plus": BackboneSize("vit_huge_plus_patch16_dinov3", _LVD),
        "7b": BackboneSize("vit_7b_patch16_dinov3", _LVD),
    },
}


class TimmBackbone(nn.Module):
    """A timm vision transformer that hands out the patch tokens of chosen blocks.

    A backbone without trainable parameters stays in eval mode whatever `train()` is told, and runs without recording
    gradients unless its input needs them.

    Attributes:
        embed_dim: width D of the tokens.
        patch_size: side of a patch in pixels.
        num_blocks: number of transformer blocks.
        in_channels: channels of the images.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit
        self.embed_dim: int = vit.embed_dim
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.num_blocks: int = len(vit.blocks)
        self.n_blocks = self.num_blocks  # Meta's name
        self.in_channels: int = vit.patch_embed.proj.in_channels

    @property
    def is_trainable(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters())

    def freeze(self) -> None:
        """Excludes every parameter from training."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode and self.is_trainable)
        return self

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, Tensor], ...]:
        """Outputs of chosen blocks, in ascending order of the blocks.

        Args:
            x: (B, C, H, W); H and W are multiples of the patch size.
            n: the last n blocks, or 0-based block numbers in any order.
            reshape: (B, D, H/p, W/p) maps instead of (B, N, D) tokens.
            return_class_token: pairs each with its (B, D) class token.
            norm: applies the final normalisation to each output.

        Raises:
            ValueError: a block that does not exist.
        """
        blocks = sorted(range(self.num_blocks - n, self.num_blocks) if isinstance(n, int) else set(n))
        if not blocks or blocks[0] < 0 or blocks[-1] >= self.num_blocks:
            raise ValueError(f"blocks {blocks} were asked for; this backbone has blocks 0 to {self.num_blocks - 1}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.is_trainable or x.requires_grad)):
            outputs = self.vit.forward_intermediates(
                x,
                indices=blocks,
                return_prefix_tokens=True,
                norm=norm,
                stop_early=True,
                output_fmt="NCHW" if reshape else "NLC",
                intermediates_only=True,
            )
        if return_class_token:
            return tuple((patches, prefix[:, 0]) for patches, prefix in outputs)
        return tuple(patches for patches, _ in outputs)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What enters the first block.

        Args:
            x: (B, C, H, W); H and W are multiples of the patch size.

        Returns:
            (B, P + HW/p^2, D) prefix and patch tokens, and the sines and cosines (HW/p^2, 2d) that rotate the patch
            tokens; None for backbones with absolute positions.
        """
        tokens = self.vit._pos_embed(self.vit.patch_embed(x))  # as timm's own forward pass does
        tokens, rotation = tokens if isinstance(tokens, tuple) else (tokens, None)
        return self.vit.norm_pre(tokens), rotation

    def run_block(
        self, block: int, tokens: Tensor, rotation: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Output of one block.

        Args:
            block: its number.
            tokens: (B, N, D), the prefix tokens first.
            rotation: of all tokens behind the prefix, see `embed`.
            attention_mask: added to the attention logits, broadcast to (B, heads, N, N).
        """
        positions = {} if rotation is None else {"rope": rotation}
        return self.vit.blocks[block](tokens, attn_mask=attention_mask, **positions)

    @property
    def num_prefix_tokens(self) -> int:
        """Class token and registers in front of the patch tokens."""
        return self.vit.num_prefix_tokens

    def final_norm(self, tokens: Tensor) -> Tensor:
        """The normalisation behind the last block."""
        return self.vit.norm(tokens)


def find_backbone(name: str, size: str) -> BackboneSize:
    """The table row of a backbone; an unknown name or size raises `UsageError` with those that exist."""
    if name not in FAMILIES:
        raise UsageError(f"model.backbone={name!r} is not known; choose one of {', '.join(FAMILIES)}")
    if size not in FAMILIES[name]:
        near = difflib.get_close_matches(size, FAMILIES[name], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"model.backbone_size={size!r}: {name} has {', '.join(FAMILIES[name])}{hint}")
    return FAMILIES[name][size]


def create_backbone(name: str, size: str, *, in_channels: int = 3) -> TimmBackbone:
    """Builds a backbone with random weights; `load_backbone_weights` fills it.

    Args:
        name: family, for example `dinov3`.
        size: row of the family's table, for example `large`.
        in_channels: channels of its input, see `InputAdapter.out_channels`.
    """
    row = find_backbone(name, size)
    with warnings.catch_warnings():  # timm 1.0.22 uses, in a model that is none of ours, what torch 2.14 deprecates
        warnings.filterwarnings("ignore", message="`torch.jit.interface` is deprecated", category=FutureWarning)
        import timm
    return TimmBackbone(timm.create_model(row.timm_name, num_classes=0, in_chans=in_channels, **row.options))
