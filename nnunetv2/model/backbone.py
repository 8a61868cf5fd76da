"""What networks ask of a vision transformer, whichever library built it."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Backbone(nn.Module, abc.ABC):
    """A vision transformer that hands out the patch tokens of chosen blocks.

    A backbone without trainable parameters stays in eval mode whatever `train()` is told, and runs without recording
    gradients unless its input needs them.

    Attributes:
        vit: the transformer itself, whose names are those of the files of weights.
        embed_dim: width D of the tokens.
        patch_size: side p of a patch in pixels.
        num_blocks: number of transformer blocks; `n_blocks`, Meta's name, is the same.
        in_channels: channels C of the images.
        num_prefix_tokens: P, class token and registers in front of the patch tokens.
    """

    vit: nn.Module
    embed_dim: int
    patch_size: int
    num_blocks: int
    in_channels: int
    num_prefix_tokens: int

    @property
    def n_blocks(self) -> int:
        return self.num_blocks

    @property
    def is_trainable(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters())

    def freeze(self) -> None:
        """Excludes every parameter from training."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
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
            outputs = self.read_blocks(x, blocks, norm=norm)
            if reshape:
                grid = [side // self.patch_size for side in x.shape[-2:]]
                outputs = [(p.transpose(1, 2).unflatten(2, grid).contiguous(), token) for p, token in outputs]
        return tuple(outputs) if return_class_token else tuple(patches for patches, _ in outputs)

    @abc.abstractmethod
    def read_blocks(self, x: Tensor, blocks: Sequence[int], *, norm: bool) -> list[tuple[Tensor, Tensor]]:
        """Patch tokens (B, N, D) and class token (B, D) after each of some blocks, whose numbers ascend."""

    @abc.abstractmethod
    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What enters the first block.

        Args:
            x: (B, C, H, W); H and W are multiples of the patch size.

        Returns:
            (B, P + HW/p^2, D) prefix and patch tokens, and the sines and cosines (HW/p^2, 2d) that rotate the patch
            tokens; None for backbones with absolute positions.
        """

    @abc.abstractmethod
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

    @abc.abstractmethod
    def final_norm(self, tokens: Tensor) -> Tensor:
        """The normalisation behind the last block."""
