"""What a row of a family's table says, and the families that are registered.

A family is a class with a nested class `Sizes`, whose attribute `rows` holds a `BackboneSize` per size. The rows are
read without importing the rest of the file, so settings load without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.utilities import extensions

SIZES = "Sizes"  # name of the nested class


@dataclass(frozen=True)
class BackboneSize:
    """One size of a family."""

    timm_name: str | None
    """Model of timm that is built; None: the family builds its own."""
    weights: str | None
    """Tag of the released weights on timm's hub; None: there are none."""
    shape: BackboneShape
    """What weights must have to fit."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments that change the model."""
    request: str | None = None
    """Which file to get, and where, if it cannot be downloaded without asking."""
    in_tree_name: str | None = None
    """The size of `dinov3.hub.architectures.SIZES` that is built instead of timm's model."""


class _Families(Mapping[str, Mapping[str, BackboneSize]]):
    """The sizes of every registered family, by the family's name; looked up anew each time, as users may add some."""

    def __getitem__(self, name: str) -> Mapping[str, BackboneSize]:
        if name not in extensions.names("backbone"):
            raise KeyError(name)
        return extensions.find("backbone", name).nested(SIZES).rows

    def __iter__(self) -> Iterator[str]:
        return iter(extensions.names("backbone"))

    def __len__(self) -> int:
        return len(extensions.names("backbone"))


FAMILIES: Mapping[str, Mapping[str, BackboneSize]] = _Families()

_TINY = {"embed_dim": 128, "depth": 4, "num_heads": 4}
LAYER_SCALE = {"init_values": 0.1}  # large enough for a miniature to learn from scratch
# Learned position embeddings belong to one size of images; for others they are resampled in the forward pass.
ANY_IMAGE_SIZE = {"dynamic_img_size": True}


def miniature(row: BackboneSize, **options: Any) -> BackboneSize:
    """An unreleased miniature of a size, for demonstrations and tests without a GPU.

    Args:
        row: of which the architecture is taken.
        options: further keyword arguments of the model.
    """
    shape = replace(row.shape, width=_TINY["embed_dim"], depth=_TINY["depth"])
    return replace(row, weights=None, request=None, shape=shape, options={**row.options, **_TINY, **options})


def settings_for(shape: BackboneShape) -> list[str]:
    """The settings that build a backbone of this shape, such as `model.backbone=dinov2 model.backbone_size=base`."""
    return [
        f"model.backbone={family} model.backbone_size={size}"
        for family, sizes in FAMILIES.items()
        for size, row in sizes.items()
        if not row.shape.differs_from(shape)
    ]
