"""Builds vision transformers by the names used in settings; the families are in `nnunetv2.model.families`."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbone_families import FAMILIES, SIZES, BackboneSize
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.utilities import extensions
from nnunetv2.utilities.registered_class import require_complete

__all__ = [
    "FAMILIES",
    "Backbone",
    "BackboneSize",
    "TimmBackbone",
    "create_backbone",
    "find_backbone",
    "register_backbone",
]

BackboneClass = TypeVar("BackboneClass", bound="type[Backbone]")


class TimmBackbone(Backbone):
    """A vision transformer from timm: `VisionTransformer` (DINOv2, MAE, iBOT) or `Eva` (DINOv3)."""

    @classmethod
    def create(cls, row: BackboneSize, in_channels: int) -> TimmBackbone:
        with warnings.catch_warnings():  # timm 1.0.22 calls, in an unrelated model, what torch 2.14 deprecates
            warnings.filterwarnings("ignore", message="`torch.jit.interface` is deprecated", category=FutureWarning)
            import timm
        return cls(timm.create_model(row.timm_name, num_classes=0, in_chans=in_channels, **row.options))

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        if getattr(vit, "rope", None) is not None:
            from nnunetv2.model.joint_rotation import rotating_jointly  # imports timm
            from nnunetv2.model.remembered_rope import remembering
            from nnunetv2.model.residual_block import adding_at_once

            vit.rope = remembering(vit.rope)
            for index, block in enumerate(vit.blocks):
                block.attn = rotating_jointly(block.attn)
                vit.blocks[index] = adding_at_once(block)
        self.vit = vit
        self.embed_dim = vit.embed_dim
        self.patch_size = vit.patch_embed.patch_size[0]
        self.num_blocks = len(vit.blocks)
        self.in_channels = vit.patch_embed.proj.in_channels
        self.num_heads = vit.blocks[0].attn.num_heads
        self.num_prefix_tokens = vit.num_prefix_tokens

    def read_blocks(self, x: Tensor, blocks: Sequence[int], *, norm: bool) -> list[tuple[Tensor, Tensor]]:
        outputs = self.vit.forward_intermediates(
            x,
            indices=list(blocks),
            return_prefix_tokens=True,
            norm=norm,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return list(outputs)

    def rotation(self, height: int, width: int) -> Tensor | None:
        rope = getattr(self.vit, "rope", None)
        return None if rope is None else rope.get_embed(shape=(height, width))

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        tokens = self.vit._pos_embed(self.vit.patch_embed(x))  # as timm's own forward pass does
        tokens, rotation = tokens if isinstance(tokens, tuple) else (tokens, None)
        return self.vit.norm_pre(tokens), rotation

    def run_block(
        self, block: int, tokens: Tensor, rotation: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        positions = {} if rotation is None else {"rope": rotation}
        return self.vit.blocks[block](tokens, attn_mask=attention_mask, **positions)

    def final_norm(self, tokens: Tensor) -> Tensor:
        return self.vit.norm(tokens)


def find_backbone(name: str, size: str) -> BackboneSize:
    """Looks up the table row of a backbone; for an unknown name or size, `UsageError` lists the valid ones."""
    if name not in FAMILIES:
        raise UsageError(
            f"model.backbone={name!r} is not known; choose one of {', '.join(FAMILIES)}, or name the folder with "
            f"its file in {extensions.EXTENSIONS}{_near(name)}{extensions.unregistered_hint('backbone', name)}"
        )
    if size not in FAMILIES[name]:
        raise UsageError(
            f"model.backbone_size={size!r}: {name} has {', '.join(FAMILIES[name])}{_near(size, FAMILIES[name])}"
        )
    return FAMILIES[name][size]


def _near(word: str, words: Iterable[str] | None = None) -> str:
    near = difflib.get_close_matches(word, FAMILIES if words is None else words, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def register_backbone(name: str) -> Callable[[BackboneClass], BackboneClass]:
    """Class decorator that registers a family; the name must be a literal, because files are scanned before import.

    The class derives from `TimmBackbone`, or from `Backbone` with a class method `create(row, in_channels)`; its nested
    class `Sizes` holds the table, see `nnunetv2.model.backbone_families`.
    """

    def register(family: BackboneClass) -> BackboneClass:
        require_complete(family, Backbone)
        if not getattr(getattr(family, SIZES, None), "rows", None):
            raise UsageError(
                f"{family.__name__} needs a class {SIZES} with rows, a BackboneSize by the name of each size"
            )
        if family.create.__func__ is Backbone.create.__func__:
            raise UsageError(f"{family.__name__} must define the class method create(cls, row, in_channels)")
        return family

    return register


def create_backbone(name: str, size: str, *, in_channels: int = 3) -> Backbone:
    """Builds a backbone with random weights; `load_backbone_weights` fills it.

    Args:
        name: family, for example `dinov3`.
        size: row of the family's table, for example `large`.
        in_channels: channels of its input, see `InputAdapter.out_channels`.

    Raises:
        UsageError: no such family or size.
    """
    row, extension = find_backbone(name, size), extensions.find("backbone", name)
    backbone = extension.load().create(row, in_channels)
    _require_shape(backbone, row.shape, f"{extension.path}: {extension.definition}")
    return backbone


def _require_shape(backbone: Backbone, shape: BackboneShape, place: str) -> None:
    """Rejects a backbone that is built with other sizes than its row in the table says."""
    for declared, built in (("width", "embed_dim"), ("depth", "num_blocks"), ("patch_size", "patch_size")):
        expected, found = getattr(shape, declared), getattr(backbone, built, None)
        if found != expected:
            raise UsageError(
                f"{place} is built with {built}={found}, and its row in {SIZES} says {declared}={expected}; correct "
                f"one of them"
            )
