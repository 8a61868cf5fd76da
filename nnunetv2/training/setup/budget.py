"""Length and number format of a training where its command says them, instead of the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nnunetv2.errors import UsageError

PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Budget:
    """What a training may use; None is what its trainer says."""

    num_epochs: int | None = None
    """Epochs of the training."""
    num_iterations_per_epoch: int | None = None
    """Training iterations between two validations."""
    num_val_iterations_per_epoch: int | None = None
    """Batches of one validation."""
    precision: str | None = None
    """Number format: fp32, fp16 or bf16."""

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if name == "precision":
                is_right, accepted = value in PRECISIONS, ", ".join(PRECISIONS)
            else:
                is_right = isinstance(value, int) and not isinstance(value, bool) and value >= 1
                accepted = "whole numbers from 1"
            if not is_right:
                raise UsageError(f"{name} is {value!r}; accepted are {accepted}, or nothing, for what the trainer says")

    def given(self) -> dict[str, int | str]:
        """Those that are not left to the trainer."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class BudgetInForce:
    """A budget that a trainer was given."""

    values: Mapping[str, int | str]
    before: Mapping[str, int | str | None]
    """what the trainer says for the same names"""


def give(trainer: Any, budget: Budget) -> None:
    """Makes a trainer keep to a budget; to be called before it is initialised.

    Raises:
        UsageError: the trainer has settings that say otherwise.
    """
    values = budget.given()
    if not values:
        return
    had = {} if trainer.budget is None else trainer.budget.before
    before = {name: had.get(name, getattr(trainer, name)) for name in values}
    if hasattr(trainer, "follow_budget"):
        trainer.follow_budget(values)
    for name, value in values.items():
        setattr(trainer, name, value)
    trainer.budget = BudgetInForce(values, before)


def take_over(trainer: Any, stored: Mapping[str, Any] | None, source: str) -> None:
    """Gives a trainer the budget of the training that a checkpoint is from.

    A training keeps the length that it was started with, as its learning rates follow from it: one that was made longer
    has another schedule than one that was as long from the start, and could not be compared with it.

    Args:
        stored: that budget; None where it had none.
        source: where the checkpoint is from, for the message.

    Raises:
        UsageError: the trainer was given another one.
    """
    stored = {field.name: stored[field.name] for field in fields(Budget) if stored and field.name in stored}
    own = trainer.budget
    for name, value in {} if own is None else own.values.items():
        had = stored.get(name, own.before[name])
        if not _are_equal(name, value, had, trainer):
            raise UsageError(
                f"The training in {source} was started with {name} {had} and cannot go on with --{name} {value}, as a "
                f"training keeps its schedule; leave out --{name}, or start a new training"
            )
    if trainer.was_initialized and any(getattr(trainer, name) != value for name, value in stored.items()):
        raise UsageError(
            f"The training in {source} has {_as_words(stored)} and this trainer was initialised without; load the "
            f"checkpoint before initialize is called"
        )
    give(trainer, Budget(**{**({} if own is None else own.values), **stored}))


def _are_equal(name: str, value: object, other: Any, trainer: Any) -> bool:
    if name != "precision":
        return value == other
    from dinov3.utils.precision import resolve_precision

    return value == resolve_precision(other, trainer.device)


def _as_words(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
