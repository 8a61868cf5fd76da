"""What a loss is that settings choose by name (`training.loss`); it is made as `Loss(config, task)`."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.training.loss.loss_config import DenseLossConfig, LabelTask, LossConfig, QueryLossConfig
from nnunetv2.utilities.registered_class import require_complete

LossClass = TypeVar("LossClass", bound="type[NamedLoss]")


class NamedLoss(nn.Module, abc.ABC):
    """Base of all losses with a name; derive from `DenseLoss` or `QueryLoss`.

    Attributes:
        name: under which it is registered.
        Config: dataclass of its settings.
    """

    name: ClassVar[str]
    Config: ClassVar[type[LossConfig]]


class DenseLoss(NamedLoss):
    """A loss of logits of pixels.

    Args:
        config: settings of the class `Config`.
        task: the labels.
    """

    Config = DenseLossConfig

    def __init__(self, config: DenseLossConfig, task: LabelTask) -> None:
        super().__init__()

    @abc.abstractmethod
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the scalar loss.

        Args:
            logits: (B, K, H, W).
            target: labels (B, 1, H, W); or regions (B, K, H, W) of 0 and 1, with a further channel for ignored pixels
                if there is an ignore label.
        """


class QueryLoss(NamedLoss):
    """A loss of classified masks; constructor as of `DenseLoss`."""

    Config = QueryLossConfig

    @abc.abstractmethod
    def forward(
        self, output: Mapping[str, Any], targets: Sequence[Mapping[str, Tensor]], valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Returns the terms of the loss by name.

        Args:
            output: what a `QueryHead` returns.
            targets: per image `labels` (T,) and `masks` (T, H, W).
            valid: (B, H, W), which pixels count; None: all.
        """

    @abc.abstractmethod
    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the terms, a scalar."""


def require_labels(loss: NamedLoss, task: LabelTask) -> None:
    """Raises `UsageError` if the dataset has regions, for losses of exclusive labels."""
    if task.has_regions:
        raise UsageError(
            f"training.loss={loss.name} trains labels, and those of this dataset are regions, which may overlap; "
            f"choose dice_ce or dice"
        )


def register_loss(name: str) -> Callable[[LossClass], LossClass]:
    """Class decorator that names a loss; the name must be a literal, as files are searched for it before they run."""

    def register(loss: LossClass) -> LossClass:
        require_complete(loss, DenseLoss, QueryLoss)
        kind = QueryLossConfig if issubclass(loss, QueryLoss) else DenseLossConfig
        if not issubclass(loss.Config, kind):
            raise UsageError(f"{loss.__name__}.Config must derive from {kind.__name__} of {kind.__module__}")
        loss.name = name
        return loss

    return register
