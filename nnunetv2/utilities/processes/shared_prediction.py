"""A prediction by several processes: each predicts some of the cases, and all of them know what failed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nnunetv2.errors import NNUNetError
from nnunetv2.utilities.processes.command_processes import Group, run_in_processes

logger = logging.getLogger(__name__)

_ADVICE = "Predict the missing cases with --continue_prediction"


class Outcome(NamedTuple):
    """How the share of one process ended."""

    has_cases: bool
    error: type[Exception] | None = None
    message: str = ""


def predict_in_processes(predict: Callable[..., list | None], args: tuple, num_gpus: int, device_type: str) -> None:
    """Calls `predict(*args)` in every process that takes part, see `run_in_processes`.

    Args:
        predict: importable by name; predicts the share of its process, or returns None if there is none.

    Raises:
        PartialPredictionError: some cases failed, in any process; the others are complete.
    """
    group = Group(device_type, advice=_ADVICE, computes_together=False)
    run_in_processes(predict_share, (predict, args), num_gpus, group)


def predict_share(predict: Callable[..., list | None], args: tuple) -> None:
    """Runs in each process. It waits for the others, because `torchrun` would stop them once one has failed."""
    from dinov3.utils.processes.process_group import gather, is_distributed

    if not is_distributed():
        predict(*args)
        return
    try:
        outcome = Outcome(has_cases=predict(*args) is not None)
    except NNUNetError as err:
        outcome = Outcome(True, type(err), str(err))
    except Exception as err:
        logger.exception("The prediction of this process stopped")  # in the end another error is raised
        outcome = Outcome(True, RuntimeError, f"{type(err).__name__}: {err}")
    raise_any(gather(outcome))


def raise_any(outcomes: Sequence[Outcome]) -> None:
    """Raises what a single process would: the error itself if no case succeeded, else that some cases are missing.

    Args:
        outcomes: of all processes, by rank.
    """
    from nnunetv2.utilities.processes.case_failures import PartialPredictionError

    busy = {number: outcome for number, outcome in enumerate(outcomes) if outcome.has_cases}
    failed = {number: outcome for number, outcome in busy.items() if outcome.error is not None}
    if not failed:
        return
    messages = {outcome.message: number for number, outcome in reversed(failed.items())}
    first = next(iter(failed.values()))
    if len(failed) == len(busy) and not any(outcome.error is PartialPredictionError for outcome in failed.values()):
        raise first.error("; ".join(reversed(messages)))
    parts = "; ".join(f"process {number}: {message}" for message, number in reversed(messages.items()))
    raise PartialPredictionError(f"{len(failed)} of {len(busy)} processes had cases that failed ({parts})")


def share_of(part_id: int, num_parts: int, rank: int, world_size: int) -> dict[str, Any]:
    """Returns `part_id` and `num_parts` with which one process predicts its share of a part of the cases."""
    return {"part_id": part_id + rank * num_parts, "num_parts": num_parts * world_size}
