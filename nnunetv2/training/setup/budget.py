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
    trained_epochs: int = 0,
    in_use: Mapping[str, int | str | None] | None = None,
) -> Budget:
    """Determines the budget of a resumed training: that of the checkpoint's training, but for a new number of epochs.

    Iterations per epoch and precision stay, because the recorded epochs would not be comparable. A training with a new
    number of epochs follows the learning rates of that length from here on; `prolonged` says so.

    Args:
        own: budget applied to the trainer.
        stored: budget of the checkpoint; None: no budget.
        source: name of the checkpoint for error messages.
        device: training device; determines the default precision.
        trained_epochs: number of epochs that are trained.
        in_use: values that the schedule of an initialised trainer was built with, by the names of `Budget`.

    Raises:
        UsageError: `own` differs from the stored budget, or ends before the trained epochs, or the trainer was
            initialised without the stored budget.
    """
    own = own or BudgetInForce({}, {})
    stored = {name: stored[name] for name in Budget.names() if stored and name in stored}
    for name, value in own.values.items():
        if name == "num_epochs":
            _require_later_end(value, trained_epochs, source)
            continue
        had = stored.get(name, own.before[name])
        if not _are_equal(name, value, had, device):
            raise UsageError(
                f"The training in {source} was started with {name} {had} and cannot go on with --{name} {value}, as a "
                f"training keeps its schedule; leave out --{name}, or start a new training"
            )
    if "num_epochs" in own.values:
        stored["num_epochs"] = own.values["num_epochs"]
    if in_use is not None and any(in_use[name] != value for name, value in stored.items()):
        raise UsageError(
            f"The training in {source} has {_as_words(stored)} and this trainer was initialised without; load the "
            f"checkpoint before initialize is called"
        )
    return Budget(**{**own.values, **stored})


def _require_later_end(num_epochs: int, trained_epochs: int, source: str) -> None:
    if num_epochs < trained_epochs:
        raise UsageError(
            f"The training in {source} has {trained_epochs} epochs already and cannot go on with --num_epochs "
            f"{num_epochs}; give at least {trained_epochs}, or leave it out"
        )


def prolonged(before: int | None, now: int, trained_epochs: int) -> str | None:
    """Says how the learning rates of a training with a new number of epochs go on; None if the number is the same.

    Args:
        before: number of epochs when the checkpoint was written; None: unknown.
        now: number of epochs from here on.
        trained_epochs: number of epochs that are trained.
    """
    if before is None or before == now or trained_epochs >= now:
        return None
    return (
        f"The training has {now} epochs instead of {before}: from epoch {trained_epochs} on, the learning rate follows "
        f"the schedule of a training of {now} epochs, so it jumps there; the epochs before are not repeated"
    )


def _are_equal(name: str, value: object, other: Any, device: torch.device) -> bool:
    if name != "precision":
        return value == other
    from dinov3.utils.precision import resolve_precision

    return value == resolve_precision(other, device)


def _as_words(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
