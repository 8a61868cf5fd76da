"""Logs the training history to TensorBoard; enabled by `nnUNet_tensorboard_enabled=1`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.errors import UsageError
from nnunetv2.training.logging.local_logger import plain

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
_NOT_SHOWN = ("epoch_start_timestamps", "epoch_end_timestamps")  # TensorBoard stores the time of every value anyway


class TensorBoardLogger:
    """Writes values as scalars into `tensorboard/` of the fold, by epoch.

    The epoch of the first value determines what is kept: epoch 0 deletes the files of an earlier training; a later
    epoch hides the recorded values of this and all later epochs.

    Args:
        output_folder: the fold's folder.
        resume: ignored; the epoch of the first value decides.

    Raises:
        UsageError: the package `tensorboard` is not installed.
    """

    def __init__(self, output_folder: str | os.PathLike, resume: bool = False) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: F401
        except ImportError as err:
            raise UsageError(
                "nnUNet_tensorboard_enabled asks for TensorBoard, which is not installed: "
                "run 'pip install tensorboard', or set nnUNet_tensorboard_enabled=0"
            ) from err

        self.folder = Path(output_folder) / FOLDER
        self.last_step = 0
        self._config: dict[str, Any] = {}
        self._writer: SummaryWriter | None = None

    def update_config(self, config: dict[str, Any]) -> None:
        """Records settings of the run as text, each under its name."""
        self._config |= config
        if self._writer is not None:
            self._write_config(config)

    def log(self, key: str, value: Any, step: int) -> None:
        """Writes one number; skips values that are not numbers."""
        if self._writer is None:
            if step == 0:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._open(purge_step=step or None)
        self.last_step = step
        if key not in _NOT_SHOWN and isinstance(number := plain(value), (int, float)):
            self._writer.add_scalar(key, number, step)
        if key == _NOT_SHOWN[-1]:
            self._writer.flush()

    def log_summary(self, key: str, value: Any) -> None:
        """Writes a once-per-run number, such as the final Dice, at the last epoch."""
        if self._writer is None:
            self._open(purge_step=None)
        if isinstance(number := plain(value), (int, float)):
            self._writer.add_scalar(key, number, self.last_step)
            self._writer.flush()

    def _open(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=purge_step)
        self._write_config(self._config)

    def _write_config(self, config: dict[str, Any]) -> None:
        for name, value in config.items():
            text = json.dumps(value, indent=2, default=str)
            self._writer.add_text(f"config/{name}", "\n".join(f"    {line}" for line in text.splitlines()))
