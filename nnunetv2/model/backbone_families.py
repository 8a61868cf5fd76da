"""Table rows of backbone families, and the registered families.

A family is a class with a nested class `Sizes`, whose attribute `rows` holds a `BackboneSize` per size. The rows are
read without importing the rest of the file, so settings load without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.utilities import extensions

SIZES = "Sizes"  # name of the nested class


@dataclass(frozen=True)
class BackboneSize:
    """One size of a family."""

    timm_name: str | None
    """Name of the timm model to build; None: the family builds its own."""
    weights: str | None
    """Tag of the released weights on timm's hub; None: there are none."""
    shape: BackboneShape
    """Shape that weights must have to be loaded."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments passed to the model's constructor."""
    request: str | None = None
    """For gated weights: the file to request, and where."""
    in_tree_name: str | None = None
    """Entry of `dinov3.hub.architectures.SIZES` to build instead of timm's model."""

    @property
    def hub_repository(self) -> str | None:
        """Repository of the released weights on the Hugging Face hub; None: there are none."""
        return None if self.weights is None else f"timm/{self.timm_name}.{self.weights}"


class _Families(Mapping[str, Mapping[str, BackboneSize]]):
    """Sizes of every registered family by name; looked up on each access, because users may register more."""

    def __getitem__(self, name: str) -> Mapping[str, BackboneSize]:
        if name not in extensions.names("backbone"):
            raise KeyError(name)
        return _checked_rows(extensions.find("backbone", name))

    def __iter__(self) -> Iterator[str]:
        return iter(extensions.names("backbone"))

    def __len__(self) -> int:
        return len(extensions.names("backbone"))


def _checked_rows(family: extensions.Extension) -> Mapping[str, BackboneSize]:
    """The table of a family. Raises `UsageError` if it is none."""
    place = f"{family.path}: {family.definition}"
    rows = getattr(family.nested(SIZES), "rows", None)
    if not isinstance(rows, Mapping) or not rows:
        raise UsageError(
            f"{place}.{SIZES} must have the class attribute rows, a dictionary with a BackboneSize by the name of each "
            f"size"
        )
    for size, row in rows.items():
        if not (isinstance(size, str) and isinstance(row, BackboneSize) and isinstance(row.shape, BackboneShape)):
            raise UsageError(
                f"{place}.{SIZES}.rows[{size!r}] must be a BackboneSize whose shape is a BackboneShape, both of "
                f"nnunetv2.model"
            )
        for name in ("width", "depth", "patch_size"):
            number = getattr(row.shape, name)
            if not isinstance(number, int) or number < 1:
                raise UsageError(
                    f"{place}.{SIZES}.rows[{size!r}].shape.{name} is {number!r}; it must be a whole number above 0"
                )
    return rows


FAMILIES: Mapping[str, Mapping[str, BackboneSize]] = _Families()

_TINY = {"embed_dim": 128, "depth": 4, "num_heads": 4}
LAYER_SCALE = {"init_values": 0.1}  # large enough for a miniature to learn from scratch
# Learned position embeddings are tied to one image size; the forward pass resamples them for others.
ANY_IMAGE_SIZE = {"dynamic_img_size": True}


def miniature(row: BackboneSize, **options: Any) -> BackboneSize:
    """An unreleased miniature of a size, for demonstrations and tests without a GPU.

    Args:
        row: size whose architecture is used.
        options: further keyword arguments for the model.
    """
    shape = replace(row.shape, width=_TINY["embed_dim"], depth=_TINY["depth"])
    return replace(row, weights=None, request=None, shape=shape, options={**row.options, **_TINY, **options})


def settings_for(shape: BackboneShape) -> list[str]:
    """Settings that build a backbone of this shape, such as `model.backbone=dinov2 model.backbone_size=base`."""
    return [
        f"model.backbone={family} model.backbone_size={size}"
        for family in FAMILIES
        for size, row in _usable_rows(family).items()
        if not row.shape.differs_from(shape)
    ]


def _usable_rows(family: str) -> Mapping[str, BackboneSize]:
    try:
        return FAMILIES[family]
    except UsageError:  # a user's file that is wrong has nothing to offer
        return {}
