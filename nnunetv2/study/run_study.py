"""A whole study: checked before anything is trained, its trainings one after the other, then the comparison."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dinov3.utils.devices import resolve_device
from nnunetv2.comparison.cases import ALLOW_ALL, PREFIX
from nnunetv2.comparison.comparability import ITEM_NAMES, in_words, protocol_equalities
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.comparison.protocol import ITEMS
from nnunetv2.comparison.results import DIFFERS, MIN_SEEDS
from nnunetv2.errors import NNUNetError, UsageError
from nnunetv2.study.definitions import require_unchanged, write_definitions
from nnunetv2.study.job_runner import Outcome, locked, run_job, stopped_by_signals
from nnunetv2.study.jobs import Job, State, jobs_of, results_folder
from nnunetv2.study.methods import Method, resolve_methods
from nnunetv2.study.planned_protocol import KNOWN_ITEMS
from nnunetv2.study.study_config import StudyConfig, load_study, study_folder
from nnunetv2.training.logging.training_log import duration_in_words
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

if TYPE_CHECKING:
    from nnunetv2.comparison.results import Comparison

_SHOWN_JOBS = 3
_ADVICE = {
    "iterations": "set budget.num_epochs and budget.num_iterations_per_epoch",
    "precision": "set budget.precision",
}

logger = logging.getLogger(__name__)


class TrainingsFailedError(NNUNetError, RuntimeError):
    """Trainings of a study that ended without a validated model."""


@dataclass(frozen=True)
class Study:
    """A study that was checked against its dataset."""

    config: StudyConfig
    dataset: str
    folder: Path
    methods: tuple[Method, ...]
    jobs: tuple[Job, ...]

    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs if job.state() is not State.DONE]


def read_study(path: Path) -> Study:
    """Reads the file of a study and checks it as far as that goes without training; nothing is written.

    Raises:
        UsageError: anything in it that no training could be started with, or that differs from what was trained.
    """
    config = load_study(path)
    base, folder = path.absolute().parent, study_folder(config, path)
    dataset = maybe_convert_to_dataset_name(config.dataset)
    methods = resolve_methods(config, dataset, base)
    jobs = jobs_of(config, methods, dataset, folder, base)
    require_unchanged(methods, jobs, folder)
    require_known_items(config.compare.allow)
    return Study(config, dataset, folder, methods, jobs)


def require_known_items(allow: Sequence[str]) -> None:
    """Rejects items of `compare.allow` that no comparison checks.

    Raises:
        UsageError: names the accepted items.
    """
    for item in allow:
        if item not in (*ITEM_NAMES, ALLOW_ALL):
            raise UsageError(f"compare.allow has {item!r}; accepted are {', '.join(ITEM_NAMES)}, and {ALLOW_ALL}")


def require_fair(methods: Sequence[Method], allow: Sequence[str]) -> None:
    """Rejects methods that the comparison would reject once they are trained.

    Raises:
        NotComparableError: with one line for each inequality.
    """
    if found := _inequalities(methods, allow):
        raise NotComparableError("\n".join(found))


def _inequalities(methods: Sequence[Method], allow: Sequence[str]) -> list[str]:
    """One line for each item in which methods differ without that being allowed."""
    protocols = {method.name: [method.protocol] for method in methods}
    items = [item for item in ITEMS if item.name in KNOWN_ITEMS and not {item.name, ALLOW_ALL} & set(allow)]
    lines = []
    for found in protocol_equalities(protocols, items):
        if found.state == DIFFERS:
            advice = _ADVICE.get(found.item, "change the models")
            lines.append(f"{PREFIX}{found.item}: {in_words(found)}; {advice}, or add {found.item} to compare.allow")
    return lines


def train_all(study: Study) -> None:
    """Carries out all trainings that are not finished, one after the other; one that fails does not stop the others.

    Folds that another process trains are waited for at the end.

    Raises:
        UsageError: there is something to train, and not the device for it.
        TrainingsFailedError: some failed; each has been logged with its reason.
    """
    todo = study.unfinished()
    if todo:
        resolve_device(study.config.device, "device: ")
    write_definitions(study.methods, study.folder)
    logger.info("%d of %d trainings are finished", len(study.jobs) - len(todo), len(study.jobs))
    if len(study.config.seeds) < MIN_SEEDS:
        logger.info("With fewer than %d seeds nothing can be said about methods, only about these models", MIN_SEEDS)
    failed: list[Outcome] = []
    with stopped_by_signals():
        elsewhere = [job for job in todo if not _try(job, todo, failed, wait=False)]
        for job in elsewhere:
            _try(job, todo, failed, wait=True)
    if failed:
        for outcome in failed:
            logger.error("FAILED %s: %s (%s)", outcome.job.name, outcome.reason, outcome.job.log)
        raise TrainingsFailedError(
            f"{len(failed)} of {len(study.jobs)} trainings failed: {listed([each.job for each in failed])}; the same "
            f"command tries them again, from their last checkpoints"
        )


def compare_all(study: Study) -> Comparison:
    """Compares all methods of a study whose trainings are finished; the report goes to `comparison` of its folder.

    Raises:
        UsageError: a training is not finished.
        NotComparableError: the models are not comparable, and that was not allowed.
    """
    from nnunetv2.comparison.compare import compare

    if unfinished := study.unfinished():
        raise UsageError(
            f"{len(unfinished)} of {len(study.jobs)} trainings are not finished ({listed(unfinished)}); they are to be "
            f"compared when they are"
        )
    models = [
        f"{method.name}={results_folder(study.folder, method.name, seed) / study.dataset / method.model_folder}"
        for method in study.methods
        for seed in study.config.seeds
    ]
    section = study.config.compare
    with locked(study.folder / "locks" / "comparison.lock", wait=True):
        return compare(
            study.dataset,
            models,
            study.folder / "comparison",
            folds=study.config.folds,
            settings=section.settings(),
            allow=section.allow,
        )


def listed(jobs: Sequence[Job]) -> str:
    """The first few trainings by name, with the number of the others."""
    more = f"; and {len(jobs) - _SHOWN_JOBS} more" if len(jobs) > _SHOWN_JOBS else ""
    return "; ".join(job.name for job in jobs[:_SHOWN_JOBS]) + more


def _try(job: Job, todo: Sequence[Job], failed: list[Outcome], *, wait: bool) -> bool:
    """Whether the training was this process's to do, or is done."""
    logger.info("[%d/%d] %s: %s, log in %s", todo.index(job) + 1, len(todo), job.name, job.state().value, job.log)
    started = time.monotonic()
    outcome = run_job(job, wait=wait)
    if outcome is None:
        logger.info("  another process trains it")
        return False
    if outcome.is_finished:
        logger.info("  finished after %s", duration_in_words(time.monotonic() - started))
    else:
        logger.error("  failed: %s", outcome.reason)
        failed.append(outcome)
    return True
