"""Score all runs on all cases."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2.comparison.among_classes import disjoint_classes
from nnunetv2.comparison.case_scores import PairScores, labels_in, score_case
from nnunetv2.comparison.empty_masks import apply_empty_policy, count_missed
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.comparison.metric import COUNTS, MASKS, METRICS, metrics_of_users
from nnunetv2.comparison.scores import Run, ScoreTable
from nnunetv2.comparison.scoring_cache import ScoringCache, value_keys
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.errors import DataError, UsageError
from nnunetv2.evaluation.confusion import LabelOrRegion, labels_of
from nnunetv2.evaluation.evaluate_predictions import num_processes_for
from nnunetv2.utilities.processes.case_pool import map_cases

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

_NAMED_AT_MOST = 5  # cases in an error message


def score_runs(
    runs: Sequence[Run],
    references: Mapping[str, Path],
    classes: Mapping[str, LabelOrRegion],
    reader_writer: BaseReaderWriter,
    settings: CompareSettings,
    ignore_label: int | None = None,
    num_processes: int | None = None,
    cache_folder: Path | None = None,
    known_labels: Collection[int] | None = None,
    fields: Mapping[str, Path] | None = None,
) -> ScoreTable:
    """Score the predictions of every run against the references, in parallel over cases.

    Args:
        runs: each with a prediction of every case.
        references: segmentation per case identifier; defines the scored cases.
        classes: foreground labels, or tuples of labels that form one region, by name.
        reader_writer: reads the format of all these files.
        settings: metrics, tolerance and empty-mask policy.
        ignore_label: voxels with this label in the reference are excluded.
        num_processes: upper limit for worker processes; by default `nnUNet_def_n_proc` or 8.
        cache_folder: cache of scores, valid as long as the scored files do not change; adding runs or metrics or
            changing the empty-mask policy computes only what is missing. None disables the cache.
        known_labels: values that files may have; None for those of the classes and the ignore label.
        fields: field of view per case; voxels outside of it are excluded. None is the whole image.

    Returns:
        All scores; independent of the number of processes, the order of the cases, and the state of the cache.

    Raises:
        NotComparableError: a run lacks cases.
        DataError: a file cannot be read, or a prediction does not lie on the grid of its reference.
        UsageError: there is nothing to compare, a class is not foreground, or the file of a metric has changed since
            it was imported.
    """
    _require_input(runs, references, classes)
    regions = tuple(classes.values())
    for name in settings.metrics:
        if (origin := METRICS[name].origin) is not None:
            origin.require_unchanged()
    among = tuple(classes[name] for name in settings.among) or tuple(disjoint_classes(regions))
    keys = value_keys(_with_companions(settings.metrics), settings.nsd_tolerance, among)
    cache = None
    if cache_folder is not None:
        cache = ScoringCache(cache_folder, regions, ignore_label, type(reader_writer).__name__)
    fields = fields or {}
    work = [_CaseWork.plan(case, references[case], runs, cache, fields.get(case)) for case in sorted(references)]
    arguments = (settings.nsd_tolerance, ignore_label, among)
    if known_labels is None:
        known_labels = labels_in(regions, ignore_label)
    jobs = [job for each in work for job in each.jobs(settings.metrics, keys)]
    results = map_cases(
        score_case,
        [
            (
                *(job.work.reference, tuple(job.missing.values()), reader_writer, regions, job.metrics, *arguments),
                *(job.work.field, known_labels),
            )
            for job in jobs
        ],
        num_processes_for([str(path) for job in jobs for path in job.files()], num_processes),
        names=[job.work.case for job in jobs],
        description="Scoring",
        show_progress=True,
    )
    # Saved job by job, so that an interrupted comparison keeps the scores it has.
    for job, scores in zip(jobs, results, strict=True):
        for key, found in zip(job.missing, scores, strict=True):
            job.work.add(key, replace(found, values={keys[name]: each for name, each in found.values.items()}))
        if cache is not None:
            cache.save(job.work.case, job.work.known)
    return replace(_table(runs, tuple(classes), work, settings, keys), has_fields=bool(fields))


def _with_companions(metrics: Sequence[str]) -> tuple[str, ...]:
    """Add the package metrics that come at no extra cost, so that later reports find them in the cache."""
    at_hand = {COUNTS, *(part for name in metrics for part in METRICS[name].reads)} - {MASKS}
    companions = (name for name in METRICS if name not in metrics and name not in metrics_of_users())
    return (*metrics, *(name for name in companions if at_hand.issuperset(METRICS[name].reads)))


@dataclass(frozen=True)
class _CaseWork:
    """A case with its cached scores."""

    case: str
    reference: Path
    predictions: Mapping[str, Path]
    """per key; equal predictions have equal keys"""
    keys: Sequence[str]
    """key of the prediction of each run"""
    known: dict[str, PairScores]
    """scores per key of the prediction; their values are stored under `value_keys`"""
    field: Path | None
    """field of view"""

    @classmethod
    def plan(
        cls, case: str, reference: Path, runs: Sequence[Run], cache: ScoringCache | None, field: Path | None
    ) -> _CaseWork:
        predictions = [run.predictions[case] for run in runs]
        for path in (reference, *predictions):
            if not path.is_file():
                raise DataError(f"Case {case}: there is no segmentation {path}")
        keys = [str(path) for path in predictions] if cache is None else cache.keys(reference, predictions, field)
        known = {} if cache is None else cache.load(case)
        return cls(case, reference, dict(zip(keys, predictions, strict=True)), keys, known, field)

    def jobs(self, requested: Sequence[str], value_key: Mapping[str, str]) -> list[_Job]:
        """Plan the scoring that the requested metrics need; predictions that lack the same metrics share a job.

        Args:
            value_key: storage key of each metric that is computed whenever a prediction is scored.
        """
        groups: dict[tuple[str, ...], dict[str, Path]] = {}
        for key, path in self.predictions.items():
            values = self.known[key].values if key in self.known else {}
            lacking = tuple(name for name in value_key if value_key[name] not in values)
            if not set(requested).isdisjoint(lacking):
                groups.setdefault(lacking, {})[key] = path
        return [_Job(self, missing, metrics) for metrics, missing in groups.items()]

    def add(self, key: str, found: PairScores) -> None:
        if key in self.known:
            found = replace(found, values={**self.known[key].values, **found.values})
        self.known[key] = found

    def scores(self) -> list[PairScores]:
        """Scores of each run."""
        return [self.known[key] for key in self.keys]


@dataclass(frozen=True)
class _Job:
    """Predictions of one case that are scored with the same metrics."""

    work: _CaseWork
    missing: Mapping[str, Path]
    """predictions by key"""
    metrics: tuple[str, ...]

    def files(self) -> tuple[Path, ...]:
        return (self.work.reference, *self.missing.values())


def _require_input(runs: Sequence[Run], references: Mapping[str, Path], classes: Mapping[str, LabelOrRegion]) -> None:
    for what, given in (("model", runs), ("case with a reference", references), ("class", classes)):
        if not given:
            raise UsageError(f"There is no {what} to compare; give at least one")
    for name, region in classes.items():
        if not labels_of(region) or min(labels_of(region)) < 1:
            raise UsageError(f"Class {name} is {region}; a class is a label from 1 upwards, or a tuple of such labels")
    lacking = [_lacking(run, references) for run in runs]
    if any(lacking):
        raise NotComparableError("\n".join(line for line in lacking if line))


def _lacking(run: Run, references: Mapping[str, Path]) -> str:
    cases = sorted(set(references) - set(run.predictions))
    if not cases:
        return ""
    named = ", ".join(cases[:_NAMED_AT_MOST]) + (", ..." if len(cases) > _NAMED_AT_MOST else "")
    return f"{run.folder} has no prediction of {len(cases)} of {len(references)} cases: {named}; predict them first"


def _table(
    runs: Sequence[Run],
    classes: tuple[str, ...],
    work: Sequence[_CaseWork],
    settings: CompareSettings,
    value_key: Mapping[str, str],
) -> ScoreTable:
    pairs = [each.scores() for each in work]  # (N, R)
    num_reference = _stacked(pairs, lambda pair: pair.num_reference, np.int64)[0]
    num_predicted = _stacked(pairs, lambda pair: pair.num_predicted, np.int64)
    diagonals = _stacked(pairs, lambda pair: pair.diagonal, np.float64)[0]
    values = {
        metric: apply_empty_policy(
            metric,
            _stacked(pairs, lambda pair, key=value_key[metric]: pair.values[key], np.float64),
            num_reference,
            num_predicted,
            diagonals,
            settings.empty,
        )
        for metric in settings.metrics
    }
    num_missed = count_missed(num_reference, num_predicted)
    return ScoreTable(
        runs=tuple(runs),
        cases=tuple(each.case for each in work),
        classes=classes,
        values=values,
        num_reference=num_reference,
        num_predicted=num_predicted,
        voxel_volume=_stacked(pairs, lambda pair: pair.voxel_volume, np.float64)[0],
        num_dimensions=max(pair.num_dimensions for of_case in pairs for pair in of_case),
        num_worst_distances={metric: num_missed for metric in settings.metrics if METRICS[metric].is_distance},
    )


def _stacked(pairs: Sequence[Sequence[PairScores]], value_of: Callable[[PairScores], object], kind: type) -> np.ndarray:
    """Collect a value of every pair as an array (R, N, ...)."""
    return np.array([[value_of(pair) for pair in of_case] for of_case in pairs], dtype=kind).swapaxes(0, 1)
