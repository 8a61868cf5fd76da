"""Progress line on the terminal: completed steps, mean loss and remaining time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from nnunetv2.training.logging.training_log import duration_in_words

SECONDS_BETWEEN_UPDATES = 0.2
_FORMAT = "{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{rate_fmt}{postfix}]"


@dataclass(frozen=True)
class Outlook:
    """Time estimates for the rest of the epoch and the training, apart from the running steps."""

    seconds_before: float
    """seconds of this epoch before the running steps"""
    num_steps_after: int
    """steps of this epoch after the running ones"""
    seconds_after: float | None
    """duration of these in the previous epoch; None if unknown"""
    num_later_epochs: int
    seconds_per_epoch: float | None
    """None in the first epoch"""

    def seconds_left(self, elapsed: float, done: int, num_steps: int) -> tuple[float, float]:
        """Estimates the remaining seconds of the epoch and of the training.

        Args:
            elapsed: seconds since the running steps began.
            done: completed steps, at least one.
            num_steps: total number of running steps.
        """
        per_step = elapsed / done
        after = per_step * self.num_steps_after if self.seconds_after is None else self.seconds_after
        of_epoch = per_step * (num_steps - done) + after
        whole_epoch = self.seconds_before + elapsed + of_epoch
        later = whole_epoch if self.seconds_per_epoch is None else self.seconds_per_epoch
        return of_epoch, of_epoch + self.num_later_epochs * later


def is_wanted() -> bool:
    """True if stderr is a terminal; there, TQDM_DISABLE turns the line off, too."""
    return sys.stderr.isatty()


def run_steps(
    step: Callable[[Any], Any], batches: Any, num_steps: int, title: str = "", outlook: Outlook | None = None
) -> list[Any]:
    """Calls `step` with `num_steps` batches in sequence and returns the results.

    Args:
        step: its result may be a dictionary with the `loss` of the batch.
        batches: iterator over batches.
        title: text at the start of the line.
        outlook: basis of the time estimate; None draws no line.
    """
    if outlook is None:
        return [step(next(batches)) for _ in range(num_steps)]
    outputs: list[Any] = []
    mean_loss = _MeanLoss()
    started = shown = time.monotonic()
    with (
        logging_redirect_tqdm(),
        tqdm(total=num_steps, desc=title, leave=False, dynamic_ncols=True, bar_format=_FORMAT, mininterval=0) as bar,
    ):
        for _ in range(num_steps):
            outputs.append(step(next(batches)))
            if (now := time.monotonic()) - shown >= SECONDS_BETWEEN_UPDATES:
                shown = now
                of_epoch, of_training = outlook.seconds_left(now - started, len(outputs), num_steps)
                bar.set_postfix_str(f"{mean_loss.words(outputs)}{_left(of_epoch, of_training)}", refresh=False)
                bar.update(len(outputs) - bar.n)
    return outputs


def _left(of_epoch: float, of_training: float) -> str:
    return f"epoch {duration_in_words(of_epoch)} left, training {duration_in_words(of_training)} left"


class _MeanLoss:
    """Mean loss of the steps; synchronises with the GPU only when the value is shown."""

    def __init__(self) -> None:
        self._sum, self._num_seen = 0.0, 0

    def words(self, outputs: Sequence[Any]) -> str:
        """Returns text such as `loss -0.4321, `; empty if the outputs have no numeric loss."""
        try:
            self._sum += sum(float(output["loss"]) for output in outputs[self._num_seen :])
        except (TypeError, ValueError, KeyError, IndexError):
            return ""
        self._num_seen = len(outputs)
        return f"loss {self._sum / self._num_seen:.4f}, "
