"""What a head is: a module that turns the tokens of a vision transformer into classes of pixels or classified masks.

A head is made as `Head(config, spec, num_classes)`; where it `owns_backbone`, the backbone and the numbers of the
chosen blocks are further arguments. The network around it adapts and pads images, resizes logits and crops them, see
`nnunetv2.model.vit_network`.

Shapes: B batch, D embed dim, p patch size, K classes or regions, Q queries.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from nnunetv2.model.backbone import Backbone, BackboneSpec, Features
from nnunetv2.model.head_config import DenseHeadConfig, HeadConfig, QueryHeadConfig

__all__ = ["BackboneSpec", "DenseHead", "Features", "Head", "QueryHead", "register_head"]

HeadClass = TypeVar("HeadClass", bound="type[Head]")


class Head(nn.Module, abc.ABC):
    """Base of all heads; derive from `DenseHead` or `QueryHead`.

    Args:
        config: settings of the class `Config`.
        spec: sizes of the backbone.
        num_classes: K.

    Attributes:
        name: under which it is registered.
        Config: dataclass of its settings.
        classifier: names of its submodules whose number of outputs is K; they start anew where weights of another
            dataset are loaded.
        part_labels: what to call submodules in `nnUNetv2_model_info`, by dotted name; others are called by their name.
        reads_rotation: whether `Features.rotation` is needed.
        owns_backbone: the constructor takes the backbone, which becomes part of the head, and the numbers of the chosen
            blocks: for heads that run the blocks themselves. `Features.maps` is empty then, and `backbone` returns it.
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
            raise TypeError(
                f"{type(self).__name__} has a class attribute {name!r}, which hides a module of that name; call the "
                f"module otherwise"
            )
        super().__setattr__(name, value)

    @property
    def size_multiple(self) -> int:
        """Height and width of the images are padded to multiples of this."""
        return self.spec.patch_size

    @property
    def backbone(self) -> Backbone:
        """The vision transformer, of heads that own it."""
        raise NotImplementedError

    def set_training_progress(self, progress: float) -> None:
        """Updates what changes during a training; `progress` runs from 0 to 1."""


class DenseHead(Head):
    """A head that classifies pixels."""

    Config = DenseHeadConfig

    @abc.abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Returns logits (B, K, h, w) that cover the padded image, of any resolution."""


class QueryHead(Head):
    """A head that proposes classified masks."""

    Config = QueryHeadConfig

    def __init__(self, config: QueryHeadConfig, spec: BackboneSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        if config.num_queries < num_classes:
            raise ValueError(f"model.num_queries={config.num_queries} is below the number of classes, {num_classes}")

    @abc.abstractmethod
    def forward(self, features: Features) -> dict[str, Any]:
        """Returns what the loss takes.

        Returns:
            `pred_logits` (B, Q, K + 1), the last class being "no object"; `pred_masks` (B, Q, h, w), logits that cover
            the padded image; and `aux_outputs`, a list of such dictionaries of earlier layers, which may be empty.
        """


def register_head(name: str) -> Callable[[HeadClass], HeadClass]:
    """Class decorator that names a head; the name must be a literal, as files are searched for it before they run."""

    def register(head: HeadClass) -> HeadClass:
        kind = QueryHeadConfig if issubclass(head, QueryHead) else DenseHeadConfig
        if not issubclass(head.Config, kind):
            raise TypeError(f"{head.__name__}.Config must derive from {kind.__name__}")
        head.name = name
        return head

    return register
