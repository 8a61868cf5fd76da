"""Predict with several processes: each takes a share of the cases, and all learn what failed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nnunetv2.errors import NNUNetError
from nnunetv2.utilities.processes.command_processes import Group, run_in_processes

logger = logging.getLogger(__name__)

_ADVICE = "Predict the missing cases with --continue_prediction"


class Outcome(NamedTuple):
    """Result of the share of one process."""

    has_cases: bool
    error: type[Exception] | None = None
    message: str = ""


def predict_in_processes(predict: Callable[..., list | None], args: tuple, num_gpus: int, device_type: str) -> None:
    """Call `predict(*args)` in every participating process, see `run_in_processes`.

    Args:
        predict: importable by name; predicts the share of its process, or returns None if the share is empty.

    Raises:
        PartialPredictionError: some cases failed in any process; the others are complete.
    """
    group = Group(device_type, advice=_ADVICE, computes_together=False)
    run_in_processes(predict_share, (predict, args), num_gpus, group)


def predict_share(predict: Callable[..., list | None], args: tuple) -> None:
    """Predict in one process, then wait for the others, because `torchrun` would stop them once one has failed."""
    from dinov3.utils.processes.process_group import gather, is_distributed

    if not is_distributed():
        predict(*args)
        return
    try:
        outcome = Outcome(has_cases=predict(*args) is not None)
    except NNUNetError as err:
        outcome = Outcome(True, type(err), str(err))
    except Exception as err:
        logger.exception("The prediction of this process stopped")  # the combined error hides this traceback
        outcome = Outcome(True, RuntimeError, f"{type(err).__name__}: {err}")
    raise_any(gather(outcome))


def raise_any(outcomes: Sequence[Outcome]) -> None:
    """Raise what a single process would: the error itself if no case succeeded, else that some cases are missing.

    Args:
        outcomes: of all processes, by rank.
    """
    from nnunetv2.utilities.processes.case_failures import PartialPredictionError

    busy = {number: outcome for number, outcome in enumerate(outcomes) if outcome.has_cases}
    failed = {number: outcome for number, outcome in busy.items() if outcome.error is not None}
    if not failed:
        return
    # Equal messages are reported once, under the lowest rank.
    messages = {outcome.message: number for number, outcome in reversed(failed.items())}
    first = next(iter(failed.values()))
    if len(failed) == len(busy) and not any(outcome.error is PartialPredictionError for outcome in failed.values()):
        raise first.error("; ".join(reversed(messages)))
    parts = "; ".join(f"process {number}: {message}" for message, number in reversed(messages.items()))
    raise PartialPredictionError(f"{len(failed)} of {len(busy)} processes had cases that failed ({parts})")


def share_of(part_id: int, num_parts: int, rank: int, world_size: int) -> dict[str, Any]:
    """Compute `part_id` and `num_parts` for the share of one process within a part of the cases."""
    return {"part_id": part_id + rank * num_parts, "num_parts": num_parts * world_size}
