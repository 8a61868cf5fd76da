"""The training history that checkpoints carry: one value per epoch and key."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)

HISTORY_KEYS = (
    "mean_fg_dice",
    "ema_fg_dice",
    "dice_per_class_or_region",
    "train_losses",
    "val_losses",
    "lrs",
    "epoch_start_timestamps",
    "epoch_end_timestamps",
)


class LocalLogger:
    """Keeps a list per key of `HISTORY_KEYS`, indexed by epoch, as plain Python numbers.

    Args:
        verbose: also write every value to the log.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self._history: dict[str, list[Any]] = {key: [] for key in HISTORY_KEYS}

    @property
    def my_fantastic_logging(self) -> dict[str, list[Any]]:
        """The history itself, under upstream's name."""
        return self._history

    def log(self, key: str, value: Any, epoch: int) -> None:
        """Records `value` for `epoch`; a second value for the latest epoch replaces the first.

        Raises:
            ValueError: `key` is not one of the history's keys, or `epoch` is before the latest.
        """
        if key not in self._history:
            raise ValueError(f"cannot log {key!r}: the keys are {', '.join(self._history)}")
        if self.verbose:
            _log.info("%s of epoch %d: %s", key, epoch, value)
        values = self._history[key]
        if len(values) <= epoch:
            values.append(plain(value))
        elif len(values) == epoch + 1:
            _log.warning("%s of epoch %d was logged twice; the second value is kept", key, epoch)
            values[epoch] = plain(value)
        else:
            raise ValueError(f"cannot log {key} of epoch {epoch}: epoch {len(values) - 1} has a value already")

    def get_value(self, key: str, step: int | None) -> Any:
        """Returns the value of `key` at epoch `step` (negative counts from the end), or all values for `None`."""
        return self._history[key] if step is None else self._history[key][step]

    def plot_progress_png(self, output_folder: str | os.PathLike) -> None:
        """Draws the history into `progress.png` of `output_folder`."""
        from nnunetv2.training.logging.progress_plot import plot_progress

        plot_progress(self._history, output_folder)

    def get_checkpoint(self) -> dict[str, list[Any]]:
        """Returns a copy of the history: lists of numbers (for `dice_per_class_or_region`: lists of lists)."""
        return {key: list(values) for key, values in self._history.items()}

    def load_checkpoint(self, checkpoint: dict[str, list[Any]]) -> None:
        """Restores a history from `get_checkpoint`, ours or upstream's."""
        restored = {key: [] for key in HISTORY_KEYS} | checkpoint
        self._history = {key: [plain(value) for value in values] for key, values in restored.items()}


def plain(value: Any) -> Any:
    """Converts numpy scalars and arrays to Python numbers and lists, which every checkpoint reader accepts."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value
