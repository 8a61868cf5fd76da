"""Settings of a loss, and what it is told of the labels; torch is not needed to read them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from dinov3.utils.yaml_config import require_range
from nnunetv2.errors import UsageError
from nnunetv2.utilities import extensions

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

DEFAULT_LOSSES = {"dense": "dice_ce", "queries": "mask_classification"}  # by the kind of head
# Terms of the dense output by name, with their weight if `training.loss` names them.
TERMS = {"skeleton_recall": 1.0, "soft_cldice": 0.5}


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

    @classmethod
    def of(cls, labels: LabelManager, *, batch_dice: bool = False, is_ddp: bool = False) -> LabelTask:
        """The task of a dataset's labels."""
        return cls(labels.num_segmentation_heads, labels.has_regions, labels.ignore_label, batch_dice, is_ddp)


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


@dataclass
class TermsConfig:
    """Terms for thin structures, added to the loss of any head; they are computed on its dense output."""

    section: ClassVar[str] = LossConfig.section

    skeleton_recall: float | None = None
    """Weight of Skeleton Recall: the share of the centrelines that is found, for vessels and the like. null: 1 with
    training.loss=skeleton_recall, else 0, which is off."""
    soft_cldice: float | None = None
    """Weight of soft-clDice: the agreement of the centrelines; slow. null: 0.5 with training.loss=soft_cldice, else 0,
    which is off."""
    soft_cldice_iterations: int = 10
    """Erosions per skeleton of soft-clDice; at least half the largest calibre in pixels. Time grows with it."""

    def resolve_terms(self, loss: str | None) -> None:
        """Replaces null weights by those that follow from `training.loss`, and checks all.

        Raises:
            UsageError: a value is out of range.
        """
        for name, weight in TERMS.items():
            if getattr(self, name) is None:
                setattr(self, name, weight if loss == name else 0.0)
            require_range(f"loss.{name}", getattr(self, name), 0)
        require_range("loss.soft_cldice_iterations", self.soft_cldice_iterations, 1)


def main_loss(name: str | None, kind: str) -> str:
    """Name of the loss that terms are added to.

    Args:
        name: value of `training.loss`. With query heads, the name of a term means the default loss and this term.
        kind: of the head, `dense` or `queries`.
    """
    return DEFAULT_LOSSES[kind] if name is None or (kind == "queries" and name in TERMS) else name


def loss_config_class(name: str | None, kind: str) -> type[LossConfig]:
    """The class of the settings of a loss.

    Args:
        name: under which the loss is registered; None: the default for the kind of head.
        kind: of the head, `dense` or `queries`.

    Raises:
        UsageError: there is no such loss, its `Config` is none of a loss, or it does not fit such heads.
    """
    extension = extensions.find("loss", main_loss(name, kind))
    config = _config_of(extension)
    if config.kind == kind:
        return config
    fitting = [each for each in extensions.names("loss") if _fits(main_loss(each, kind), kind)]
    raise UsageError(
        f"training.loss={name} does not fit the head, which "
        f"{'proposes masks' if kind == 'queries' else 'classifies pixels'}; choose one of {', '.join(fitting)}"
    )


def losses_with_setting(section: str, name: str) -> list[str]:
    """Returns the names of the losses whose settings in `section` include `name`."""
    return [loss for loss in extensions.names("loss") if (section, name) in _settings_of(loss)]


def _settings_of(loss: str) -> list[tuple[str, str]]:
    try:
        config = _config_of(extensions.find("loss", loss))
    except UsageError:  # a user's file that is wrong owns no setting, and is not what the message is about
        return []
    return [(config.section, field.name) for field in fields(config)]


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


def own_terms(config: type[LossConfig]) -> set[str]:
    """Names of the terms that a loss computes itself: those that are settings of it."""
    return {field.name for field in fields(config)} & TERMS.keys()
