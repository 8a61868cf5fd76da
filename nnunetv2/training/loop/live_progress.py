"""A line on the terminal while steps are made: how far they are, their mean loss, and how long it still takes."""

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
    """What an epoch and a training hold beside the steps that are being made."""

    seconds_before: float
    """of this epoch"""
    num_steps_after: int
    """of this epoch"""
    seconds_after: float | None
    """that these took in the epoch before; None if that is not known"""
    num_later_epochs: int
    seconds_per_epoch: float | None
    """None in the first epoch"""

    def seconds_left(self, elapsed: float, done: int, num_steps: int) -> tuple[float, float]:
        """The time to the end of the epoch, and of the training.

        Args:
            elapsed: seconds of the steps that are being made.
            done: how many of them were made, at least one.
            num_steps: how many of them there are.
        """
        per_step = elapsed / done
        after = per_step * self.num_steps_after if self.seconds_after is None else self.seconds_after
        of_epoch = per_step * (num_steps - done) + after
        whole_epoch = self.seconds_before + elapsed + of_epoch
        later = whole_epoch if self.seconds_per_epoch is None else self.seconds_per_epoch
        return of_epoch, of_epoch + self.num_later_epochs * later


def is_wanted() -> bool:
    """Whether there is a terminal to draw on. The variable TQDM_DISABLE turns the line off on a terminal, too."""
    return sys.stderr.isatty()


def run_steps(
    step: Callable[[Any], Any], batches: Any, num_steps: int, title: str = "", outlook: Outlook | None = None
) -> list[Any]:
    """Calls `step` with `num_steps` batches, one after the other, and returns what it returns.

    Args:
        step: its result may be a dictionary with the `loss` of the batch.
        batches: the iterator that they come from.
        title: in front of the line.
        outlook: what to reckon with; None draws no line.
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
    """The mean loss of steps; losses on a GPU are waited for only when it is asked for."""

    def __init__(self) -> None:
        self._sum, self._num_seen = 0.0, 0

    def words(self, outputs: Sequence[Any]) -> str:
        """For example `loss -0.4321, `; nothing if the outputs have no losses that are numbers."""
        try:
            self._sum += sum(float(output["loss"]) for output in outputs[self._num_seen :])
        except (TypeError, ValueError, KeyError, IndexError):
            return ""
        self._num_seen = len(outputs)
        return f"loss {self._sum / self._num_seen:.4f}, "
