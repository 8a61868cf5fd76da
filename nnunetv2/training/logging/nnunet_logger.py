"""The trainers' logger: stores the history locally and forwards values to external loggers."""

from __future__ import annotations

import math
import os
from typing import Any

from dinov3.utils.processes.process_group import rank_and_world_size
from nnunetv2.errors import UsageError
from nnunetv2.training.logging.external_loggers import FailureGuard
from nnunetv2.training.logging.local_logger import LocalLogger
from nnunetv2.training.logging.tensorboard_logger import TensorBoardLogger
from nnunetv2.training.logging.wandb_logger import WandbLogger, get_cluster_job_id

__all__ = ["LocalLogger", "MetaLogger", "WandbLogger", "get_cluster_job_id", "nnUNetLogger"]

_EMA_OLD, _EMA_NEW = 0.9, 0.1  # weights of the previous average and of the new Dice

nnUNetLogger = LocalLogger  # name imported by trainers written for nnU-Net before 2.7


class MetaLogger:
    """Reads, plots and checkpoints through a `LocalLogger`; external loggers only receive values.

    External loggers are the objects in the list `loggers`, with the methods `log(key, value, step)`, `log_summary(key,
    value)` and `update_config(config)`. A list is sent as one value per entry, under the key with the suffix `/class_1`
    and so on. If a logger fails, the training continues. With several processes, only the first creates the loggers
    enabled in the environment.

    Args:
        output_folder: the fold's folder.
        resume: the training is resumed; external loggers then continue their run.
        verbose: write every value to the log.
    """

    def __init__(self, output_folder: str | os.PathLike, resume: bool, verbose: bool = False) -> None:
        self.output_folder = output_folder
        self.resume = resume
        self.local_logger = LocalLogger(verbose)
        self.loggers: list[Any] = []
        self._guard = FailureGuard()
        switches = {"nnUNet_wandb_enabled": WandbLogger, "nnUNet_tensorboard_enabled": TensorBoardLogger}
        for variable, logger_class in switches.items():
            if self._is_logger_enabled(variable) and rank_and_world_size()[0] == 0:
                self.loggers += self._guard.make(logger_class, output_folder, resume)

    def log(self, key: str, value: Any, step: int) -> None:
        """Records `value` of epoch `step`. Logging `mean_fg_dice` also logs its moving average, `ema_fg_dice`."""
        self.local_logger.log(key, value, step)
        parts = {key: value}
        if isinstance(value, list):
            parts = {f"{key}/class_{number}": entry for number, entry in enumerate(value, start=1)}
        for name, part in parts.items():
            self._tell("log", name, part, step)
        if key == "mean_fg_dice":
            self.log("ema_fg_dice", self._next_ema(float(value), step), step)

    def _tell(self, method: str, *args: Any) -> None:
        for logger in self.loggers:
            self._guard.call(logger, method, *args)

    def _next_ema(self, dice: float, step: int) -> float:
        """Updates the moving average; an epoch without foreground has no Dice and leaves it unchanged."""
        earlier = self.local_logger.get_value("ema_fg_dice", None)[:step]
        if not earlier or math.isnan(earlier[-1]):
            return dice
        return earlier[-1] if math.isnan(dice) else _EMA_OLD * earlier[-1] + _EMA_NEW * dice

    def get_value(self, key: str, step: int | None) -> Any:
        """Returns the value of `key` at epoch `step`, or the list of all values for `None`."""
        return self.local_logger.get_value(key, step)

    def log_summary(self, key: str, value: Any) -> None:
        """Forwards a once-per-run value, such as the final Dice, to the external loggers."""
        self._tell("log_summary", key, value)

    def update_config(self, config: dict[str, Any]) -> None:
        """Forwards settings of the run to the external loggers."""
        self._tell("update_config", config)

    def plot_progress_png(self, output_folder: str | os.PathLike) -> None:
        """Draws the history into `progress.png` of `output_folder`."""
        self.local_logger.plot_progress_png(output_folder)

    def get_checkpoint(self) -> dict[str, list[Any]]:
        """Returns the local history in a form that can be saved."""
        return self.local_logger.get_checkpoint()

    def load_checkpoint(self, checkpoint: dict[str, list[Any]]) -> None:
        """Restores a history from `get_checkpoint`."""
        self.local_logger.load_checkpoint(checkpoint)

    def _is_logger_enabled(self, env_var: str) -> bool:
        value = os.environ.get(env_var, "0")
        if value.lower() not in ("0", "1", "false", "true"):
            raise UsageError(f"{env_var} is {value!r}; set it to 0 (off) or 1 (on)")
        return value.lower() in ("1", "true")
