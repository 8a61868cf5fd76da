"""Length and precision of a training, set by the command instead of the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from nnunetv2.errors import UsageError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Budget:
    """Length and precision of a training; None: decided by the trainer."""

    num_epochs: int | None = None
    """Epochs of the training."""
    num_iterations_per_epoch: int | None = None
    """Training iterations between two validations."""
    num_val_iterations_per_epoch: int | None = None
    """Batches of one validation."""
    precision: str | None = None
    """Precision: fp32, fp16 or bf16."""

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if name == "precision":
                is_right, accepted = value in PRECISIONS, ", ".join(PRECISIONS)
            else:
                is_right = isinstance(value, int) and not isinstance(value, bool) and value >= 1
                accepted = "whole numbers from 1"
            if not is_right:
                raise UsageError(f"{name} is {value!r}; accepted are {accepted}, or nothing, for what the trainer says")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the fields, which are also attribute names of trainers."""
        return tuple(field.name for field in fields(cls))

    def given(self) -> dict[str, int | str]:
        """Returns the fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class BudgetInForce:
    """A budget applied to a trainer."""

    values: Mapping[str, int | str]
    before: Mapping[str, int | str | None]
    """the trainer's own values for the same names"""


def in_force(
    values: Mapping[str, int | str], in_use: Mapping[str, int | str | None], earlier: BudgetInForce | None
) -> BudgetInForce:
    """Combines values with an earlier budget and keeps the trainer's original values.

    Args:
        in_use: current values of the trainer, at least for these names.
        earlier: budget that was applied before.
    """
    before = {} if earlier is None else earlier.before
    return BudgetInForce(values, {name: before.get(name, in_use[name]) for name in values})


def resumed_budget(
    own: BudgetInForce | None,
    stored: Mapping[str, Any] | None,
    source: str,
    *,
    device: torch.device,
    in_use: Mapping[str, int | str | None] | None = None,
) -> Budget:
    """Determines the budget of a resumed training: that of the checkpoint's training.

    A training keeps its initial length because its learning rates depend on it: a prolonged training has another
    schedule than one that had this length from the start, and the two are not comparable.

    Args:
        own: budget applied to the trainer.
        stored: budget of the checkpoint; None: no budget.
        source: name of the checkpoint for error messages.
        device: training device; determines the default precision.
        in_use: values that the schedule of an initialised trainer was built with, by the names of `Budget`.

    Raises:
        UsageError: `own` differs from the stored budget, or the trainer was initialised without the stored one.
    """
    own = own or BudgetInForce({}, {})
    stored = {name: stored[name] for name in Budget.names() if stored and name in stored}
    for name, value in own.values.items():
        had = stored.get(name, own.before[name])
        if not _are_equal(name, value, had, device):
            raise UsageError(
                f"The training in {source} was started with {name} {had} and cannot go on with --{name} {value}, as a "
                f"training keeps its schedule; leave out --{name}, or start a new training"
            )
    if in_use is not None and any(in_use[name] != value for name, value in stored.items()):
        raise UsageError(
            f"The training in {source} has {_as_words(stored)} and this trainer was initialised without; load the "
            f"checkpoint before initialize is called"
        )
    return Budget(**{**own.values, **stored})


def _are_equal(name: str, value: object, other: Any, device: torch.device) -> bool:
    if name != "precision":
        return value == other
    from dinov3.utils.precision import resolve_precision

    return value == resolve_precision(other, device)


def _as_words(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
