"""Interface of a vision transformer to the networks, independent of the library that implements it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnunetv2.model.backbone_families import BackboneSize


@dataclass(frozen=True)
class BackboneSpec:
    """Sizes of a vision transformer, as a head needs them to be built."""

    embed_dim: int
    """Width D of the tokens."""
    num_blocks: int
    patch_size: int
    """Side p of a patch in pixels."""
    num_heads: int
    """Attention heads of a block."""
    num_prefix_tokens: int
    """P, number of prefix tokens: class token and registers."""
    in_channels: int
    """Channels of the backbone's input."""
    num_maps: int = 4
    """n, number of selected blocks; the head receives one map per block."""


@dataclass
class Features:
    """Input of a head: the image and the tokens of n selected blocks after the final norm, shallowest first."""

    image: Tensor
    """(B, C', H, W), the input of the backbone: adapted, padded and scaled."""
    maps: list[Tensor]
    """Patch tokens of each block, (B, D, H/p, W/p)."""
    prefix_tokens: list[Tensor]
    """Class token and registers of each block, (B, P, D)."""
    rotation: Tensor | None = None
    """Sines and cosines (HW/p^2, 2d) of the patches, for heads that request them; None with absolute positions."""
    needs_aux: bool = True
    """False in prediction: a `QueryHead` may leave `aux_outputs` empty."""
    depth: int | None = None
    """D, if every D images are the slices of one volume: a `QueryHead` then proposes masks of volumes. None: they are
    images."""
    fuse: Callable[[int, Tensor], Tensor] | None = None
    """For heads that own the backbone, if the images are slices of volumes: mixes a map (B, D, *, *), given its number,
    along the depth."""

    def fused(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The four maps (B, D, *, *) of a head that owns the backbone, mixed along the depth of volumes."""
        return [one if self.fuse is None else self.fuse(number, one) for number, one in enumerate(maps)]

    @property
    def class_tokens(self) -> list[Tensor]:
        """Class token of each block, (B, D)."""
        return [tokens[:, 0] for tokens in self.prefix_tokens]


class Backbone(nn.Module, abc.ABC):
    """A vision transformer that returns the patch tokens of selected blocks.

    A backbone without trainable parameters ignores `train()` and stays in eval mode. In that case gradients are
    recorded only if the input requires them.

    Attributes:
        vit: the transformer itself; its parameter names match those in weight files.
        embed_dim: width D of the tokens.
        patch_size: side p of a patch in pixels.
        num_blocks: number of transformer blocks; `n_blocks`, Meta's name, is the same.
        in_channels: channels C of the images.
        num_heads: attention heads of a block.
        num_prefix_tokens: P, class token and registers in front of the patch tokens.
    """

    vit: nn.Module
    embed_dim: int
    patch_size: int
    num_blocks: int
    in_channels: int
    num_heads: int
    num_prefix_tokens: int

    @classmethod
    def create(cls, row: BackboneSize, in_channels: int) -> Backbone:
        """Builds a size of the family with random weights.

        Args:
            row: the size, from the family's table.
            in_channels: C.
        """
        raise NotImplementedError(f"{cls.__name__} does not define how it is built; give it a class method create")

    @property
    def spec(self) -> BackboneSpec:
        """Returns the sizes of this backbone."""
        return BackboneSpec(
            embed_dim=self.embed_dim,
            num_blocks=self.num_blocks,
            patch_size=self.patch_size,
            num_heads=self.num_heads,
            num_prefix_tokens=self.num_prefix_tokens,
            in_channels=self.in_channels,
        )

    @property
    def n_blocks(self) -> int:
        return self.num_blocks

    @property
    def is_trainable(self) -> bool:
        return any(parameter.requires_grad for parameter in self.parameters())

    def freeze(self) -> None:
        """Freezes every parameter."""
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
        """Returns the outputs of selected blocks, in ascending order of the blocks.

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
        outputs = self._read(x, blocks, norm=norm)
        if reshape:
            outputs = [(self._as_map(patches, x), prefix) for patches, prefix in outputs]
        if return_class_token:
            return tuple((patches, prefix[:, 0]) for patches, prefix in outputs)
        return tuple(patches for patches, _ in outputs)

    def features(self, image: Tensor, blocks: Sequence[int], *, with_rotation: bool = False) -> Features:
        """Computes the input of a head for an image.

        Args:
            image: (B, C, H, W); H and W are multiples of the patch size.
            blocks: 0-based numbers, ascending.
            with_rotation: compute the rotation of the patches too.
        """
        outputs = self._read(image, blocks, norm=True)
        grid = [side // self.patch_size for side in image.shape[-2:]]
        return Features(
            image=image,
            maps=[self._as_map(patches, image) for patches, _ in outputs],
            prefix_tokens=[prefix for _, prefix in outputs],
            rotation=self.rotation(*grid) if with_rotation else None,
        )

    def _read(self, x: Tensor, blocks: Sequence[int], *, norm: bool) -> list[tuple[Tensor, Tensor]]:
        if not blocks or blocks[0] < 0 or blocks[-1] >= self.num_blocks:
            raise ValueError(f"blocks {blocks} were asked for; this backbone has blocks 0 to {self.num_blocks - 1}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and (self.is_trainable or x.requires_grad)):
            return self.read_blocks(x, blocks, norm=norm)

    def _as_map(self, patches: Tensor, image: Tensor) -> Tensor:
        """(B, N, D) -> (B, D, H/p, W/p)."""
        grid = [side // self.patch_size for side in image.shape[-2:]]
        return patches.transpose(1, 2).unflatten(2, grid).contiguous()

    @abc.abstractmethod
    def read_blocks(self, x: Tensor, blocks: Sequence[int], *, norm: bool) -> list[tuple[Tensor, Tensor]]:
        """Returns patch tokens (B, N, D) and prefix tokens (B, P, D) after each block; numbers must ascend."""

    @abc.abstractmethod
    def rotation(self, height: int, width: int) -> Tensor | None:
        """Returns sines and cosines (height * width, 2d) for a map of patch tokens; None with absolute positions."""

    @abc.abstractmethod
    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Computes the input of the first block.

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
        """Runs one block.

        Args:
            block: its number.
            tokens: (B, N, D), the prefix tokens first.
            rotation: of all tokens after the prefix, see `embed`.
            attention_mask: added to the attention logits, broadcast to (B, heads, N, N).
        """

    @abc.abstractmethod
    def final_norm(self, tokens: Tensor) -> Tensor:
        """Applies the normalisation that follows the last block."""
