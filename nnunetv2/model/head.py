"""Heads: modules that turn the tokens of a vision transformer into pixel classes or classified masks.

A head is constructed as `Head(config, spec, num_classes)`. If it `owns_backbone`, the backbone and the selected block
numbers follow as further arguments. The surrounding network adapts and pads images, and resizes and crops logits, see
`nnunetv2.model.vit_network`.

Shapes: B batch, D embed dim, p patch size, K classes or regions, Q queries.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import Backbone, BackboneSpec, Features
from nnunetv2.model.head_config import DenseHeadConfig, HeadConfig, QueryHeadConfig
from nnunetv2.utilities.registered_class import require_complete

__all__ = ["BackboneSpec", "DenseHead", "Features", "Head", "QueryHead", "register_head"]

HeadClass = TypeVar("HeadClass", bound="type[Head]")


class Head(nn.Module, abc.ABC):
    """Base of all heads; derive from `DenseHead` or `QueryHead`.

    Args:
        config: settings of the class `Config`.
        spec: sizes of the backbone.
        num_classes: K.

    Attributes:
        name: name in the registry.
        Config: dataclass of its settings.
        classifier: submodules with K outputs; they are re-initialised when weights of another dataset are loaded.
        part_labels: labels of submodules in `nnUNetv2_model_info`, by dotted name; the default is the submodule's name.
        reads_rotation: the head needs `Features.rotation`.
        owns_backbone: the head runs the blocks itself. Its constructor receives the backbone, which becomes a
            submodule, and the selected block numbers; `Features.maps` is empty, and `backbone` returns the backbone.
    """

    name: ClassVar[str]
    Config: ClassVar[type[HeadConfig]]
    classifier: ClassVar[tuple[str, ...]] = ()
    part_labels: ClassVar[Mapping[str, str]] = {}
    reads_rotation: ClassVar[bool] = False
    owns_backbone: ClassVar[bool] = False

    def __init__(self, config: HeadConfig, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__()
        self.spec = spec

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module) and hasattr(type(self), name):
            module = type(self).__module__
            place = getattr(sys.modules.get(module), "__file__", None) or module
            raise UsageError(
                f"{place}: {type(self).__name__} has a class attribute {name!r}, which "
                f"hides a module of that name; call the module otherwise"
            )
        super().__setattr__(name, value)

    @property
    def size_multiple(self) -> int:
        """Height and width of the images are padded to multiples of this."""
        return self.spec.patch_size

    @property
    def num_fused_maps(self) -> int:
        """Number of maps of the backbone's width that adapters mix along the depth of volumes."""
        return self.spec.num_maps

    @property
    def backbone(self) -> Backbone:
        """The vision transformer; only for heads that own it."""
        raise NotImplementedError

    def set_training_progress(self, progress: float) -> None:
        """Updates progress-dependent behaviour; `progress` runs from 0 to 1."""


class DenseHead(Head):
    """A head that classifies pixels."""

    Config = DenseHeadConfig

    @abc.abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Returns logits (B, K, h, w) of any resolution that cover the padded image."""


class QueryHead(Head):
    """A head that proposes classified masks."""

    Config = QueryHeadConfig

    def __init__(self, config: QueryHeadConfig, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        if config.num_queries < num_classes:
            raise ValueError(f"model.num_queries={config.num_queries} is below the number of classes, {num_classes}")

    @abc.abstractmethod
    def forward(self, features: Features) -> dict[str, Any]:
        """Computes the input of the loss.

        Returns:
            `pred_logits` (B, Q, K + 1) with "no object" as last class; `pred_masks` (B, Q, h, w), logits that cover the
            padded image, or (B, Q, D, h, w) for volumes of D slices, `features.depth`; and `aux_outputs`, a possibly
            empty list of such dictionaries from earlier layers. Only the loss reads that list: without
            `features.needs_aux`, work for it can be skipped.
        """


def register_head(name: str) -> Callable[[HeadClass], HeadClass]:
    """Class decorator that registers a head; the name must be a literal, because files are scanned before import."""

    def register(head: HeadClass) -> HeadClass:
        require_complete(head, DenseHead, QueryHead)
        kind = QueryHeadConfig if issubclass(head, QueryHead) else DenseHeadConfig
        if not issubclass(head.Config, kind):
            raise UsageError(f"{head.__name__}.Config must derive from {kind.__name__} of {kind.__module__}")
        head.name = name
        return head

    return register
