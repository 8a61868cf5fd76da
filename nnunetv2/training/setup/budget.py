"""Length and number format of a training where its command says them, instead of the trainer."""

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

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What a budget may say, as attributes of trainers are called, too."""
        return tuple(field.name for field in fields(cls))

    def given(self) -> dict[str, int | str]:
        """Those that are not left to the trainer."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class BudgetInForce:
    """A budget that a trainer was given."""

    values: Mapping[str, int | str]
    before: Mapping[str, int | str | None]
    """what the trainer says for the same names"""


def in_force(
    values: Mapping[str, int | str], in_use: Mapping[str, int | str | None], earlier: BudgetInForce | None
) -> BudgetInForce:
    """The budget of a trainer that is given these values; what the trainer said before any budget stays known.

    Args:
        in_use: values that the trainer has now, for these names at least.
        earlier: budget that the trainer was given before.
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
    """The budget that a training resumes with: that of the training that a checkpoint is from.

    A training keeps the length that it was started with, as its learning rates follow from it: one that was made longer
    has another schedule than one that was as long from the start, and could not be compared with it.

    Args:
        own: budget that the trainer was given.
        stored: budget of the checkpoint; None where it had none.
        source: where the checkpoint is from, for the message.
        device: to train on; it decides what a precision that is not given means.
        in_use: values that the schedule of an initialised trainer was made with, by the names of `Budget`.

    Raises:
        UsageError: `own` is another budget, or the trainer was initialised without the stored one.
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
