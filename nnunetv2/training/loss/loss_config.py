"""Settings of a loss, and what it is told of the labels; torch is not needed to read them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from nnunetv2.errors import UsageError
from nnunetv2.utilities import extensions

DEFAULT_LOSSES = {"dense": "dice_ce", "queries": "mask_classification"}  # by the kind of head


@dataclass(frozen=True)
class LabelTask:
    """The labels that a loss is built for."""

    num_outputs: int
    """K, classes with background as class 0, or regions."""
    has_regions: bool
    """Outputs are regions that may overlap, not exclusive labels."""
    ignore_label: int | None
    """Value of pixels that do not count; None: all count."""
    batch_dice: bool
    """Compute the Dice over the batch instead of per sample, as the plans say."""
    is_ddp: bool
    """Several processes train together; sums over the batch are to be added up over them."""


@dataclass
class LossConfig:
    """Base of the settings of all losses; use `DenseLossConfig` or `QueryLossConfig`."""

    kind: ClassVar[str]
    """`dense` or `queries`: heads that it fits."""
    section: ClassVar[str] = "loss"
    """Section of a file of settings that holds them."""


@dataclass
class DenseLossConfig(LossConfig):
    """Settings of a loss of logits of pixels."""

    kind: ClassVar[str] = "dense"


@dataclass
class QueryLossConfig(LossConfig):
    """Settings of a loss of classified masks."""

    kind: ClassVar[str] = "queries"


def loss_config_class(name: str | None, kind: str) -> type[LossConfig]:
    """The class of the settings of a loss.

    Args:
        name: under which the loss is registered; None: the default for the kind of head.
        kind: of the head, `dense` or `queries`.

    Raises:
        UsageError: there is no such loss, its `Config` is none of a loss, or it does not fit such heads.
    """
    extension = extensions.find("loss", DEFAULT_LOSSES[kind] if name is None else name)
    config = _config_of(extension)
    if config.kind == kind:
        return config
    fitting = [each for each in extensions.names("loss") if _fits(each, kind)]
    raise UsageError(
        f"training.loss={name} does not fit the head, which "
        f"{'proposes masks' if kind == 'queries' else 'classifies pixels'}; choose one of {', '.join(fitting)}"
    )


def _config_of(extension: extensions.Extension) -> type[LossConfig]:
    config = extension.config()
    if not (isinstance(config, type) and issubclass(config, (DenseLossConfig, QueryLossConfig))):
        raise UsageError(
            f"{extension.path}: {extension.definition}.Config must derive from DenseLossConfig or QueryLossConfig of "
            f"{LossConfig.__module__} and be a dataclass"
        )
    return config


def _fits(name: str, kind: str) -> bool:
    try:
        return _config_of(extensions.find("loss", name)).kind == kind
    except UsageError:  # a user's file that is wrong is no choice, and not what the command is about
        return False


def has_settings(config: type[LossConfig]) -> bool:
    """Whether there is anything to set."""
    return bool(fields(config))
