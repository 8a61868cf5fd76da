"""Run a study: validate everything first, train one model after the other, then compare them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dinov3.utils.devices import resolve_device
from dinov3.utils.folder_lock import locked_folder
from dinov3.utils.processes.stop_signals import ended_by_signals
from nnunetv2.comparison.cases import ALLOW_ALL, PREFIX, dataset_format, require_cases, with_declared_classes
from nnunetv2.comparison.comparability import ITEM_NAMES, in_words, protocol_equalities
from nnunetv2.comparison.declared_classes import declared_lacks
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.comparison.metric import require_usable
from nnunetv2.comparison.models import find_reader
from nnunetv2.comparison.protocol import ITEMS
from nnunetv2.comparison.results import DIFFERS, MIN_SEEDS
from nnunetv2.errors import NNUNetError, UsageError
from nnunetv2.evaluation.field_of_view import field_files
from nnunetv2.study.definitions import require_unchanged, write_definitions
from nnunetv2.study.job_runner import RESUME, Outcome, run_job
from nnunetv2.study.jobs import Job, State, jobs_of, results_folder
from nnunetv2.study.methods import Method, resolve_methods, validated_cases
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
    """Some trainings of a study ended without a validated model."""


@dataclass(frozen=True)
class Study:
    """A study validated against its dataset."""

    config: StudyConfig
    dataset: str
    folder: Path
    methods: tuple[Method, ...]
    jobs: tuple[Job, ...]
    base: Path
    """folder from which relative paths of the study's file start"""

    @property
    def fov(self) -> Path | None:
        """Folder of the fields of view."""
        folder = self.config.compare.fov
        return None if folder is None else self.base / folder

    @property
    def reader(self) -> str | None:
        """`[NAME=]FOLDER` of the second reader."""
        word = self.config.compare.reader
        if word is None:
            return None
        name, equals, folder = word.partition("=")
        if not equals or os.sep in name:
            return str(self.base / word)
        return f"{name}={self.base / folder}"

    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs if job.state() is not State.DONE]


def read_study(path: Path) -> Study:
    """Read and validate a study file without training; writes nothing.

    Raises:
        UsageError: a setting that no training could start with, or a method that differs from its existing trainings.
    """
    config = load_study(path)
    base, folder = path.absolute().parent, study_folder(config, path)
    dataset = maybe_convert_to_dataset_name(config.dataset)
    methods = resolve_methods(config, dataset, base)
    jobs = jobs_of(config, methods, dataset, folder, base)
    require_unchanged(methods, jobs, folder)
    require_known_items(config.compare.allow)
    return Study(config, dataset, folder, methods, jobs, base)


def require_comparison(study: Study) -> None:
    """Reject a study before training if its comparison would be rejected afterwards.

    Raises:
        UsageError: a metric cannot be used (names its file), the comparison declares a class that does not exist, or
            the second reader has no folder or the name of a method.
        DataError: a case that is validated has no field of view, or no segmentation of the second reader.
        NotComparableError: the methods differ, see `require_fair`.
    """
    if len(study.methods) > 1:
        require_usable(study.config.compare.metrics)
        _require_declarations(study)
    require_fair(study.methods, study.config.compare.allow)


def _require_declarations(study: Study) -> None:
    settings, methods = study.config.compare.settings(), [method.name for method in study.methods]
    if study.reader is not None:
        methods.append(_require_reader(study, methods))
    if settings.regions or settings.classes or settings.primary_classes or settings.among or settings.lacks:
        layout = with_declared_classes(dataset_format(study.dataset, ()), settings)
        declared_lacks(settings.lacks, methods, layout.classes)
    if study.fov is not None:
        field_files(study.fov, validated_cases(study.config, study.dataset))


def _require_reader(study: Study, methods: Sequence[str]) -> str:
    """Checks the second reader; returns its name."""
    reader = find_reader(study.dataset, study.reader, methods)
    require_cases(reader, validated_cases(study.config, study.dataset))
    return reader.method


def require_known_items(allow: Sequence[str]) -> None:
    """Reject items of `compare.allow` that no comparison checks.

    Raises:
        UsageError: names the accepted items.
    """
    for item in allow:
        if item not in (*ITEM_NAMES, ALLOW_ALL):
            raise UsageError(f"compare.allow has {item!r}; accepted are {', '.join(ITEM_NAMES)}, and {ALLOW_ALL}")


def require_fair(methods: Sequence[Method], allow: Sequence[str]) -> None:
    """Reject methods before training if the comparison would reject them afterwards.

    Raises:
        NotComparableError: lists one line per difference.
    """
    if found := _inequalities(methods, allow):
        raise NotComparableError("\n".join(found))


def _inequalities(methods: Sequence[Method], allow: Sequence[str]) -> list[str]:
    """One line per item in which the methods differ and may not."""
    protocols = {method.name: [method.protocol] for method in methods}
    items = [item for item in ITEMS if item.name in KNOWN_ITEMS and not {item.name, ALLOW_ALL} & set(allow)]
    lines = []
    for found in protocol_equalities(protocols, items):
        if found.state == DIFFERS:
            advice = _ADVICE.get(found.item, "change the models")
            lines.append(f"{PREFIX}{found.item}: {in_words(found)}; {advice}, or add {found.item} to compare.allow")
    return lines


def train_all(study: Study) -> None:
    """Run all unfinished trainings one after the other; a failure does not stop the others.

    Folds that another process is training are awaited at the end.

    Raises:
        UsageError: the device for the remaining trainings is not available.
        TrainingsFailedError: some trainings failed; each is logged with its reason.
        PreemptedError: a signal ended the study, or its running training.
    """
    todo = study.unfinished()
    if todo:
        resolve_device(study.config.device, "device: ")
    write_definitions(study.methods, study.folder)
    logger.info("%d of %d trainings are finished", len(study.jobs) - len(todo), len(study.jobs))
    if len(study.config.seeds) < MIN_SEEDS:
        logger.info("With fewer than %d seeds, conclusions hold for these models only, not for the methods", MIN_SEEDS)
    failed: list[Outcome] = []
    with ended_by_signals(f"The running training is saved. {RESUME}"):
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
    """Compare all methods of a finished study; the report goes to the folder `comparison` of the study.

    Raises:
        UsageError: a training is unfinished.
        NotComparableError: the models differ in something that is not allowed to differ.
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
    with locked_folder(study.folder / "locks" / "comparison", "comparing", wait=True):
        return compare(
            study.dataset,
            models,
            study.folder / "comparison",
            folds=study.config.folds,
            settings=section.settings(),
            allow=section.allow,
            fields=study.fov,
            reader=study.reader,
        )


def listed(jobs: Sequence[Job]) -> str:
    """Join the first few trainings by name and count the rest."""
    more = f"; and {len(jobs) - _SHOWN_JOBS} more" if len(jobs) > _SHOWN_JOBS else ""
    return "; ".join(job.name for job in jobs[:_SHOWN_JOBS]) + more


def _try(job: Job, todo: Sequence[Job], failed: list[Outcome], *, wait: bool) -> bool:
    """Run a training; False if another process is running it."""
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
