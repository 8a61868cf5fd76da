"""A training as a command for one or several processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from nnunetv2.run.training_run import TrainingRun
from nnunetv2.utilities.processes.command_processes import (
    Group,
    num_started_processes,
    run_as_one_of_several,
    run_in_processes,
)

logger = logging.getLogger(__name__)

Train = Callable[[TrainingRun], None]


def train_in_processes(train: Train, run: TrainingRun, num_gpus: int) -> None:
    """Calls `train(run)` in every process that is to take part, see `run_in_processes`."""
    if num_gpus <= 1 and num_started_processes() == 1:
        _warn_of_independent_tasks()
    run_in_processes(train, (run,), num_gpus, _group(run))


def train_as_one_of_several(train: Train, run: TrainingRun) -> None:
    """Joins the group that the environment describes and calls `train(run)`."""
    run_as_one_of_several(train, (run,), _group(run))


def _group(run: TrainingRun) -> Group:
    return Group(run.device_type, advice="Continue the training with --c")


def _warn_of_independent_tasks() -> None:
    num_tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if num_tasks != "1":
        logger.warning(
            "srun runs this command %s times, and each trains on its own. If they were meant to train one fold "
            "together, start one task per machine and in it torchrun (docs/multi_gpu.md)",
            num_tasks,
        )
