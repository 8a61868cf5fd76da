"""The text log of a training, the shorter console lines, and the formatting of durations."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from dinov3.utils.atomic_files import is_full
from nnunetv2.training.logging.nnunet_logger import MetaLogger


def log_file_name(started: datetime) -> str:
    """Returns a name such as `training_log_2025_3_9_07_05_01.txt`: date without, time with leading zeros."""
    return f"training_log_{started.year}_{started.month}_{started.day}_{started:%H_%M_%S}.txt"


def write_line(path: str | Path | None, words: Sequence[object], *, timestamp: bool, console: bool) -> None:
    """Appends the words as one line to `path`, creating its folder if needed, and prints them to stdout.

    If the log cannot be written (full disk, lost network folder), the training continues: the line and the reason go to
    stderr instead. Neither does it end if stdout or stderr are files on a full disk.
    """
    line = " ".join(str(word) for word in ((f"{datetime.now()}:", *words) if timestamp else words))
    if path is not None:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as err:
            _write_to(sys.stderr, f"could not write to {path} ({err}): {line}")
    if console:
        _write_to(sys.stdout, line)


def _write_to(stream: TextIO, line: str) -> None:
    try:
        tqdm.write(line, file=stream)  # above the live line, if there is one
        stream.flush()
    except OSError as err:
        if not is_full(err):
            raise


def duration_in_words(seconds: float) -> str:
    """Formats a duration in its two largest units: `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    seconds = max(0, round(seconds))
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // smaller_size} {smaller}"
    return f"{seconds} s"


def time_left(durations: Sequence[float], remaining: int, window: int = 10) -> float:
    """Estimates the seconds for `remaining` more rounds from the mean of the last `window` durations."""
    recent = durations[-window:]
    return remaining * sum(recent) / len(recent) if recent else 0.0


def epoch_durations(logger: MetaLogger) -> list[float]:
    """Returns the durations of the completed epochs in seconds."""
    starts, ends = (logger.get_value(f"epoch_{moment}_timestamps", None) for moment in ("start", "end"))
    return [end - start for start, end in zip(starts, ends, strict=False)]  # the current epoch has no end yet


def plans_lines(plans: Mapping[str, Any], configuration_name: str, configuration: object) -> list[str]:
    """Lines for the configuration and for the part of the plans that all configurations share."""
    shared = {key: value for key, value in plans.items() if key != "configurations"}
    return [f"Configuration {configuration_name}: {configuration}", f"Plans: {shared}"]


def epoch_line(epoch: int, values: Mapping[str, Any], remaining: int, left: float, *, is_best: bool) -> str:
    """Formats the console line of an epoch.

    Args:
        values: the values written to `metrics.jsonl`.
        remaining: number of remaining epochs.
        left: estimated seconds for these.
    """
    dice = f"pseudo Dice {_number(values['mean_fg_dice'])}, moving average {_number(values['ema_fg_dice'])}"
    losses = f"train_loss {_number(values['train_loss'])}, val_loss {_number(values['val_loss'])}"
    line = f"Epoch {epoch}: {losses}, {dice}{' (best)' if is_best else ''}, {_number(values['seconds'], 1)} s"
    return f"{line}; {remaining} to go, about {duration_in_words(left)}" if remaining > 0 else line


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def epoch_lines(logger: MetaLogger, remaining_epochs: int) -> list[str]:
    """Formats the log lines at the end of an epoch: losses, Dice per class, duration and time left."""
    last = {key: logger.get_value(key, -1) for key in ("train_losses", "val_losses", "dice_per_class_or_region")}
    durations = epoch_durations(logger)
    lines = [
        f"train_loss {last['train_losses']:.4f}",
        f"val_loss {last['val_losses']:.4f}",
        f"Pseudo dice [{', '.join(f'{dice:.4f}' for dice in last['dice_per_class_or_region'])}]",
        f"Epoch time: {durations[-1]:.2f} s",
    ]
    if remaining_epochs > 0:
        left = duration_in_words(time_left(durations, remaining_epochs))
        lines.append(f"{remaining_epochs} epochs to go, about {left}")
    return lines
