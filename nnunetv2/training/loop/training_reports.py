"""What a training tells beside its text log: a live line, a line per epoch, files of metrics, and a picture."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from datetime import datetime
from typing import Any

from dinov3.utils.process_group import rank_and_world_size
from nnunetv2.training.logging import training_log
from nnunetv2.training.logging.epoch_values import epoch_values
from nnunetv2.training.logging.local_logger import plain
from nnunetv2.training.logging.metric_files import MetricFiles
from nnunetv2.training.logging.picture_schedule import PictureSchedule
from nnunetv2.training.loop import live_progress
from nnunetv2.training.protocol.conditions import validated_checkpoint
from nnunetv2.training.protocol.run_information import run_information
from nnunetv2.training.setup.distributed import global_batch_size
from nnunetv2.training.state import previous_training
from nnunetv2.training.state.checkpoint import is_better
from nnunetv2.utilities.label_handling.output_names import foreground_names

_FINAL = "final_val/"  # in front of the scores of the validation of whole cases
_LAST_FINAL = "final_val/foreground_dice"


class TrainingReports:
    """Tells what one trainer does. Of several processes, only the first tells anything.

    It is one of the external loggers of the trainer, so that it learns of epochs also where hooks are overridden. To a
    trainer whose logger is of another kind, `end_epoch` has to be said.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer_reference = weakref.ref(trainer)  # a cycle would keep its network on the GPU for a while
        self._started = _now()
        self._is_announced = False
        self._previous: previous_training.PreviousTraining | None = None
        self._last_epoch: int | None = None
        self._rates: list[float] = []  # of this epoch
        self._seconds: dict[str, float] = {}  # that the steps of a kind took last
        self._final_scores: dict[str, Any] = {}
        self._files: MetricFiles | None = None
        self._pictures = PictureSchedule()

    @property
    def _trainer(self) -> Any:
        return self._trainer_reference()

    def train(self, step: Callable[[Any], Any], batches: Any) -> list[Any]:
        """Makes the training steps of an epoch, as many as the trainer says, and returns what they return."""
        self._announce()
        self._rates = _learning_rates(self._trainer)
        return self._run("training", step, batches, self._trainer.num_iterations_per_epoch)

    def validate(self, step: Callable[[Any], Any], batches: Any) -> list[Any]:
        """Makes the validation steps of an epoch; see `train`."""
        return self._run("validation", step, batches, self._trainer.num_val_iterations_per_epoch)

    def _announce(self) -> None:
        if not self._is_announced:
            self._is_announced = True
            self._trainer.print_to_log_file(training_log.announcement(self._trainer, self._batch_size()))
            self._previous = previous_training.of(self._trainer) if _is_first_process() else None

    def _batch_size(self) -> int:
        return global_batch_size(self._trainer.batch_size, self._trainer.configuration_manager.batch_size)

    def _run(self, kind: str, step: Callable[[Any], Any], batches: Any, num_steps: int) -> list[Any]:
        started = time.monotonic()
        outlook = self._outlook(kind) if _is_first_process() and live_progress.is_wanted() else None
        title = f"Epoch {self._trainer.current_epoch} {kind}"
        outputs = live_progress.run_steps(step, batches, num_steps, title, outlook)
        self._seconds[kind] = time.monotonic() - started
        return outputs

    def _outlook(self, kind: str) -> live_progress.Outlook:
        trainer, is_training = self._trainer, kind == "training"
        durations = training_log.epoch_durations(trainer.logger)
        return live_progress.Outlook(
            seconds_before=0.0 if is_training else self._seconds.get("training", 0.0),
            num_steps_after=trainer.num_val_iterations_per_epoch if is_training else 0,
            seconds_after=self._seconds.get("validation") if is_training else 0.0,
            num_later_epochs=trainer.num_epochs - trainer.current_epoch - 1,
            seconds_per_epoch=training_log.time_left(durations, 1) if durations else None,
        )

    def log(self, key: str, value: Any, step: int) -> None:
        """Announces the training with its first epoch; reports an epoch when its end, the last of it, is logged."""
        if key == "epoch_start_timestamps":
            self._announce()
        elif key == "epoch_end_timestamps":
            self.end_epoch(step)

    def log_summary(self, key: str, value: Any) -> None:
        """Takes the scores of the final validation; the mean of the foreground is the last of them."""
        if not (_is_first_process() and key.startswith(_FINAL)):
            return
        self._final_scores[key] = plain(value)
        if key == _LAST_FINAL and (files := self._metric_files()) is not None:
            names = foreground_names(self._trainer.label_manager)
            dice = {name: self._final_scores.get(f"{_FINAL}class_{label}_dice") for label, name in names.items()}
            done = {"time": _now(), "epochs_trained": self._trainer.current_epoch}
            done["checkpoint"] = validated_checkpoint(self._trainer)
            done["seconds_per_case"] = self._final_scores.get(f"{_FINAL}seconds_per_case")
            files.add_validation({**done, "mean_fg_dice": self._final_scores[key], "dice": dice})

    def update_config(self, config: dict[str, Any]) -> None:
        """Settings are in the line that describes the run."""

    def end_epoch(self, epoch: int) -> None:
        """Reports an epoch that was logged, once: on the console, in the files of metrics, and as a picture."""
        if epoch == self._last_epoch or not _is_first_process():
            return
        self._last_epoch = epoch
        trainer = self._trainer
        rates, seconds = self._rates or _learning_rates(trainer), self._seconds.get("training")
        values = epoch_values(trainer, epoch, rates, seconds, self._batch_size())
        remaining = trainer.num_epochs - epoch - 1
        left = training_log.time_left(training_log.epoch_durations(trainer.logger), remaining)
        ema = values["ema_fg_dice"]
        is_best = ema is not None and is_better(ema, trainer._best_ema)
        line = training_log.epoch_line(epoch, values, remaining, left, is_best=is_best)
        training_log.write_line(None, [line], timestamp=True, console=True)
        self._set_previous_training_aside()  # ahead of the metrics, which belong to the checkpoints
        if (files := self._metric_files()) is not None:
            files.add_epoch(epoch, {"time": _now(), **values})
            self._pictures.draw(lambda: trainer.logger.plot_progress_png(trainer.output_folder), is_last=remaining <= 0)

    def _set_previous_training_aside(self) -> None:
        previous, self._previous = self._previous, None
        line = None if previous is None else previous.set_aside()
        if line is not None:
            self._trainer.print_to_log_file(line)

    def _metric_files(self) -> MetricFiles | None:
        trainer = self._trainer
        if self._files is None and trainer.output_folder is not None:
            self._files = MetricFiles(trainer.output_folder, lambda: run_information(self._trainer, self._started))
        return self._files


def _learning_rates(trainer: Any) -> list[float]:
    return [float(group["lr"]) for group in getattr(trainer.optimizer, "param_groups", ())]


def _is_first_process() -> bool:
    return rank_and_world_size()[0] == 0


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
