"""Logs the training history to Weights & Biases; enabled by `nnUNet_wandb_enabled=1`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from nnunetv2.errors import UsageError


def get_cluster_job_id() -> str | None:
    """Returns the id of this process's Slurm job, or else of its LSF job."""
    return os.environ.get("SLURM_JOB_ID", os.environ.get("LSB_JOBID"))


class WandbLogger:
    """Sends values to a W&B run of project `nnUNet_wandb_project` ("nnunet") in mode `nnUNet_wandb_mode` ("online").

    Args:
        output_folder: the fold's folder; the run's files go to `wandb/` in it.
        resume: continue the run found there; false: delete it and start a new run.

    Raises:
        UsageError: the package `wandb` is not installed.
    """

    def __init__(self, output_folder: str | os.PathLike, resume: bool) -> None:
        try:
            import wandb
        except ImportError as err:
            raise UsageError(
                "nnUNet_wandb_enabled asks for Weights & Biases, which is not installed: "
                "run 'pip install wandb', or set nnUNet_wandb_enabled=0"
            ) from err

        self.output_folder = Path(output_folder)
        self.resume = resume
        if not resume:
            shutil.rmtree(self.output_folder / "wandb", ignore_errors=True)
        self.run = wandb.init(
            project=os.environ.get("nnUNet_wandb_project", "nnunet"),
            mode=os.environ.get("nnUNet_wandb_mode", "online"),
            dir=str(self.output_folder),
            id=_latest_run_id(self.output_folder) if resume else None,
            resume="allow" if resume else "never",
        )
        self.run.config.update({"JobID": get_cluster_job_id()})
        self.wandb_init_step = self.run.step

    def update_config(self, config: dict[str, Any]) -> None:
        """Merges `config` into the run's configuration."""
        self.run.config.update(config)

    def log(self, key: str, value: Any, step: int) -> None:
        """Sends one number; skips epochs that the resumed run already logged, because W&B steps must increase."""
        self.log_summary("current_epoch", step)
        if not self.resume or step >= self.wandb_init_step:
            self.run.log({key: value}, step=step)

    def log_summary(self, key: str, value: Any) -> None:
        """Sets a once-per-run value, such as the final Dice."""
        self.run.summary[key] = value


def _latest_run_id(output_folder: Path) -> str | None:
    """Finds the latest run id; W&B names a run's file `run-{id}.wandb`."""
    for path in sorted((output_folder / "wandb" / "latest-run").glob("run-*.wandb")):
        return path.stem.removeprefix("run-")
    return None
