"""Submit the trainings of a study as one Slurm array."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.errors import UsageError
from nnunetv2.study.definitions import write_definitions
from nnunetv2.study.job_runner import run_job
from nnunetv2.study.jobs import Job
from nnunetv2.study.run_study import Study, TrainingsFailedError
from nnunetv2.study.study_config import SlurmSection
from nnunetv2.utilities.message_parts import command_text

if TYPE_CHECKING:
    from submitit import Executor
    from submitit.helpers import DelayedSubmission

_GIB_IN_MEGABYTES = 1024
_MINUTES = 60

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlurmTraining:
    """Task of the array that runs one training; requeued on timeout or preemption."""

    job: Job

    def __call__(self) -> str:
        outcome = run_job(self.job)
        if outcome is None:
            return f"{self.job.name}: another process trains it"
        if not outcome.is_finished:
            raise TrainingsFailedError(f"{self.job.name}: {outcome.reason} ({self.job.log})")
        return f"{self.job.name}: finished"

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit before Slurm ends the task; the training resumes from its last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(study: Study, path: str) -> list[str]:
    """Submit all unfinished trainings and log how to continue.

    Submitting twice is safe: the second task of a training ends at once.

    Args:
        path: of the study file, for the log message.

    Returns:
        The task ids.

    Raises:
        UsageError: submitit is not installed, or this machine cannot submit to Slurm.
    """
    todo = study.unfinished()
    if not todo:
        logger.info("All trainings are finished; compare them by: %s", _comparison(path))
        return []
    executor = make_executor(study.folder / "slurm", study.config.slurm, f"study_{study.folder.name}")
    write_definitions(study.methods, study.folder)
    with executor.batch():
        tasks = [executor.submit(SlurmTraining(job)) for job in todo]
    ids = [task.job_id for task in tasks]
    logger.info(
        "Submitted %d trainings, %s to %s. When they are done: %s",
        len(ids), ids[0], ids[-1], _comparison(path),
    )  # fmt: skip
    return ids


def _comparison(path: str) -> str:
    return command_text(["nnUNetv2_study", path, "--only_compare"])


def make_executor(folder: Path, section: SlurmSection, name: str, cluster: str = "slurm") -> Executor:
    """Create the submitit executor for a `slurm` section of the study file.

    Args:
        folder: where submitit stores its files of each task.
        cluster: `local` runs the tasks as processes on this machine.
    """
    try:
        import submitit
    except ImportError as err:
        raise UsageError('--slurm needs submitit; install it by: pip install "nnunetv2[slurm]"') from err
    if cluster == "slurm" and shutil.which("srun") is None:
        raise UsageError("--slurm: there is no srun here; start the study where jobs are submitted, on a login node")
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=section.max_requeues)
    executor.update_parameters(name=name, **parameters(section))
    return executor


def parameters(section: SlurmSection) -> dict[str, Any]:
    """Translate a section to submitit's parameter names; unset values are left to the cluster's defaults."""
    values = {
        "timeout_min": max(1, round(section.time * _MINUTES)),
        "cpus_per_task": section.cpus,
        "nodes": 1,
        "tasks_per_node": 1,
        "slurm_array_parallelism": section.array_parallelism,
        "gpus_per_node": section.gpus or None,
        "slurm_mem": None if section.memory is None else f"{round(section.memory * _GIB_IN_MEGABYTES)}M",
        "slurm_partition": section.partition,
        "slurm_setup": list(section.setup) or None,
        "slurm_additional_parameters": section.options or None,
    }
    return {name: value for name, value in values.items() if value is not None}
