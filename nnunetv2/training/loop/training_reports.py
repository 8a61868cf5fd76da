"""Reports of a training besides its text log: progress line, one line per epoch, metric files, and a plot."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.processes.process_group import rank_and_world_size
from nnunetv2.training.logging import training_log
from nnunetv2.training.logging.epoch_values import epoch_values
from nnunetv2.training.logging.local_logger import plain
from nnunetv2.training.logging.metric_files import MetricFiles
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.logging.picture_schedule import PictureSchedule
from nnunetv2.training.loop import live_progress
from nnunetv2.training.protocol.run_information import TrainingDescription, run_information
from nnunetv2.training.state import previous_training
from nnunetv2.training.state.checkpoint import is_better, validated_checkpoint
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.label_handling.output_names import foreground_names

_log = logging.getLogger(__name__)

_FINAL = "final_val/"  # prefix of the final validation's scores
_LAST_FINAL = "final_val/foreground_dice"


@dataclass(frozen=True)
class TrainingStatus:
    """Snapshot of a training, as far as reports need it."""

    description: TrainingDescription
    epoch: int
    """current or next epoch, counted from 0"""
    best_ema: float | None
    """highest moving average of the pseudo Dice, 0 to 1; None before the first"""
    learning_rates: list[float]
    """one per parameter group"""
    logger: MetaLogger
    """history of losses and metrics"""
    labels: LabelManager
    output_folder: str | None
    """folder of the fold; None without a results folder"""
    writes_checkpoints: bool
    restored_checkpoint: tuple[str | None, int | None]
    """name and epoch of the last loaded checkpoint"""
    print_line: Callable[[str], None]
    """writes a line to the log file and to the console"""


class TrainingReports:
    """Reports the progress of one trainer; with several processes, only the first reports.

    It is registered as an external logger of the trainer, so that it also sees epochs when hooks are overridden.
    Trainers with a different logger must call `end_epoch`.

    Args:
        status: method that returns the current status of the training.
    """

    def __init__(self, status: Callable[[], TrainingStatus]) -> None:
        self._status_reference = weakref.WeakMethod(status)  # a cycle would delay freeing the network on the GPU
        self._started = _now()
        self._is_announced = False
        self._previous: previous_training.PreviousTraining | None = None
        self._last_epoch: int | None = None
        self._rates: list[float] = []  # learning rates of this epoch
        self._seconds: dict[str, float] = {}  # last duration of training and validation steps
        self._final_scores: dict[str, Any] = {}
        self._files: MetricFiles | None = None
        self._pictures = PictureSchedule()

    def _status(self) -> TrainingStatus:
        return self._status_reference()()

    def train(self, step: Callable[[Any], Any], batches: Any) -> list[Any]:
        """Runs the training steps of an epoch and returns their results."""
        status = self._status()
        self._announce(status)
        self._rates = status.learning_rates
        return self._run("training", step, batches, status)

    def validate(self, step: Callable[[Any], Any], batches: Any) -> list[Any]:
        """Runs the validation steps of an epoch and returns their results."""
        return self._run("validation", step, batches, self._status())

    def _announce(self, status: TrainingStatus) -> None:
        if not self._is_announced:
            self._is_announced = True
            status.print_line(_announcement(status))
            if _is_first_process():
                folder, is_kept = status.output_folder, status.writes_checkpoints
                self._previous = previous_training.found_at_start(folder, status.epoch, writes_checkpoints=is_kept)

    def _run(self, kind: str, step: Callable[[Any], Any], batches: Any, status: TrainingStatus) -> list[Any]:
        run = status.description
        num_steps = run.num_iterations_per_epoch if kind == "training" else run.num_val_iterations_per_epoch
        started = time.monotonic()
        outlook = self._outlook(kind, status) if _is_first_process() and live_progress.is_wanted() else None
        outputs = live_progress.run_steps(step, batches, num_steps, f"Epoch {status.epoch} {kind}", outlook)
        self._seconds[kind] = time.monotonic() - started
        return outputs

    def _outlook(self, kind: str, status: TrainingStatus) -> live_progress.Outlook:
        run, is_training = status.description, kind == "training"
        durations = training_log.epoch_durations(status.logger)
        return live_progress.Outlook(
            seconds_before=0.0 if is_training else self._seconds.get("training", 0.0),
            num_steps_after=run.num_val_iterations_per_epoch if is_training else 0,
            seconds_after=self._seconds.get("validation") if is_training else 0.0,
            num_later_epochs=run.num_epochs - status.epoch - 1,
            seconds_per_epoch=training_log.time_left(durations, 1) if durations else None,
        )

    def log(self, key: str, value: Any, step: int) -> None:
        """Announces the training at its first epoch; reports an epoch when its end time, its last value, is logged."""
        if key == "epoch_start_timestamps":
            self._announce(self._status())
        elif key == "epoch_end_timestamps":
            self.end_epoch(step)

    def log_summary(self, key: str, value: Any) -> None:
        """Collects the scores of the final validation; the foreground mean is the last one."""
        if not (_is_first_process() and key.startswith(_FINAL)):
            return
        self._final_scores[key] = plain(value)
        status = self._status()
        if key == _LAST_FINAL and (files := self._metric_files(status.output_folder)) is not None:
            names = foreground_names(status.labels)
            dice = {name: self._final_scores.get(f"{_FINAL}class_{label}_dice") for label, name in names.items()}
            done = {"time": _now(), "epochs_trained": status.epoch}
            num_epochs = status.description.num_epochs
            done["checkpoint"] = validated_checkpoint(status.restored_checkpoint, status.epoch, num_epochs)
            done["seconds_per_case"] = self._final_scores.get(f"{_FINAL}seconds_per_case")
            files.add_validation({**done, "mean_fg_dice": self._final_scores[key], "dice": dice})

    def update_config(self, config: dict[str, Any]) -> None:
        """Does nothing: the line of type `run` already contains the settings."""

    def end_epoch(self, epoch: int) -> None:
        """Reports a logged epoch once: on the console, in the metric files, and as a plot."""
        if epoch == self._last_epoch or not _is_first_process():
            return
        self._last_epoch = epoch
        status = self._status()
        values = self._values_of(epoch, status)
        remaining = status.description.num_epochs - epoch - 1
        left = training_log.time_left(training_log.epoch_durations(status.logger), remaining)
        ema = values["ema_fg_dice"]
        is_best = ema is not None and is_better(ema, status.best_ema)
        line = training_log.epoch_line(epoch, values, remaining, left, is_best=is_best)
        training_log.write_line(None, [line], timestamp=True, console=True)
        self._set_previous_training_aside(status)  # before the metrics are written, which must match the checkpoints
        if (files := self._metric_files(status.output_folder)) is not None:
            files.add_epoch(epoch, {"time": _now(), **values})
            self._draw(status, is_last=remaining <= 0)

    def _draw(self, status: TrainingStatus, *, is_last: bool) -> None:
        try:
            self._pictures.draw(lambda: status.logger.plot_progress_png(status.output_folder), is_last=is_last)
        except OSError as err:
            _log.warning("%s. The training goes on without a new progress.png", err)

    def _values_of(self, epoch: int, status: TrainingStatus) -> dict[str, Any]:
        run = status.description
        return epoch_values(
            status.logger.get_checkpoint(),
            epoch,
            names=list(foreground_names(status.labels).values()),
            learning_rates=self._rates or status.learning_rates,
            training_seconds=self._seconds.get("training"),
            num_samples=run.num_iterations_per_epoch * run.batch_size,
            device=run.device,
        )

    def _set_previous_training_aside(self, status: TrainingStatus) -> None:
        previous, self._previous = self._previous, None
        line = None if previous is None else previous.set_aside()
        if line is not None:
            status.print_line(line)

    def _metric_files(self, folder: str | None) -> MetricFiles | None:
        if self._files is None and folder is not None:
            self._files = MetricFiles(folder, lambda: run_information(self._status().description, self._started))
        return self._files


def _announcement(status: TrainingStatus) -> str:
    """Summarises in one line what is trained, for how long, and where the results are."""
    run = status.description
    num_parameters = sum(parameter.numel() for parameter in unwrap(run.network).parameters())
    patch = " x ".join(str(int(size)) for size in run.patch_size)
    return (
        f"{run.trainer} on {run.dataset}, {run.configuration}, fold {run.fold}: {num_parameters:,} parameters, "
        f"{run.batch_size} patches of {patch} per batch, epochs {status.epoch} to {run.num_epochs - 1} on "
        f"{run.device}; log and metrics in {status.output_folder}"
    )


def _is_first_process() -> bool:
    return rank_and_world_size()[0] == 0


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
