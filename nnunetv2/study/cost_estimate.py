"""Report the work and cost of a study before training starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import torch

from nnunetv2.run.model_info_report import aligned
from nnunetv2.run.trainer_setup import make_trainer
from nnunetv2.study.jobs import Job, State
from nnunetv2.study.methods import Method
from nnunetv2.study.run_study import Study
from nnunetv2.training.cost.trainer_cost import trainer_cost
from nnunetv2.utilities.class_lookup import find_by_name

_PETA = 1e15
_UNKNOWN = "not known"
_HEADER = ("method", "trainings left", "iterations", "patches", "PFLOPs", "hours", "hours left")
_FOOT = (
    "Iterations, patches (batch size x patch size), PFLOPs (1e15 operations) and hours are those of one training, "
    "without\nthe validation of whole cases. Hours are known once an epoch of the method has been trained here."
)


def described(study: Study) -> str:
    """Format the commands that the study would run, a cost table of the methods, and the totals."""
    todo = study.unfinished()
    commands = [f"# {job.name}: {job.state().value}\n{job.command_line(job.state())}\n" for job in todo]
    rows = [_row(study, method) for method in study.methods]
    left = [hours_left(_jobs_of(study, method)) for method in study.methods]
    sums = f"{len(todo)} of {len(study.jobs)} trainings are left, in {study.folder}"
    known = [hours for hours in left if not math.isnan(hours)]
    if known and todo:
        at_least = "" if len(known) == len(left) else "at least "
        gpu_hours = f", {sum(known) * study.config.num_gpus:.1f} GPU hours" if study.config.device == "cuda" else ""
        sums += f": {at_least}{sum(known):.1f} hours one after the other{gpu_hours}"
    return "\n".join([*commands, aligned([_HEADER, *rows]), "", _FOOT, "", sums, ""])


def seconds_per_epoch(jobs: Sequence[Job]) -> float:
    """Mean over all recorded epochs of these trainings; NaN if there are none."""
    seconds = [value for job in jobs for value in job.epoch_seconds()]
    return fmean(seconds) if seconds else math.nan


def hours_left(jobs: Sequence[Job]) -> float:
    """Hours left for all trainings of a method together; NaN if no epoch of it was timed."""
    epochs = [_epochs_left(job) for job in jobs]
    return seconds_per_epoch(jobs) * sum(epochs) / 3600 if any(epochs) else 0.0


def _epochs_left(job: Job) -> int:
    state = job.state()
    if state in (State.DONE, State.TRAINED):
        return 0
    return job.num_epochs - (len(job.epoch_seconds()) if state is State.CUT_OFF else 0)


def _row(study: Study, method: Method) -> tuple[str, ...]:
    jobs = _jobs_of(study, method)
    num_left = sum(job.state() is not State.DONE for job in jobs)
    iterations = method.num_epochs * method.num_iterations_per_epoch
    hours = seconds_per_epoch(jobs) * method.num_epochs / 3600
    return (
        method.name,
        f"{num_left} of {len(jobs)}",
        f"{method.num_epochs} x {method.num_iterations_per_epoch}",
        f"{method.batch_size} x {'x'.join(map(str, method.patch_size))}",
        f"{flops_per_patch(study, method) * method.batch_size * iterations / _PETA:.3g}",
        _as_text(hours),
        _as_text(hours_left(jobs)),
    )


def flops_per_patch(study: Study, method: Method) -> int:
    """Floating-point operations of one patch in a training step; a multiply-add counts as two."""
    trainer = make_trainer(
        find_by_name("trainer", method.trainer),
        study.dataset,
        method.configuration,
        0,
        method.plans,
        device=torch.device("cpu"),
        trainer_kwargs=method.trainer_arguments(),
    )
    return trainer_cost(trainer, trainer.plans_manager).total("training_flops")


def _jobs_of(study: Study, method: Method) -> list[Job]:
    return [job for job in study.jobs if job.method == method.name]


def _as_text(hours: float) -> str:
    return _UNKNOWN if math.isnan(hours) else f"{hours:.2f}"
