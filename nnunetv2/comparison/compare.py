"""Compare trained models: from the `-m` arguments to the written report."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nnunetv2.comparison.cases import (
    DatasetFormat,
    case_problems,
    common_cases,
    dataset_format,
    image_files,
    length_unit,
    reference_files,
    require_cases,
    require_known_cases,
    with_declared_classes,
)
from nnunetv2.comparison.comparability import comparability, require_comparable
from nnunetv2.comparison.declared_classes import declared_lacks
from nnunetv2.comparison.metric import require_usable
from nnunetv2.comparison.models import find_reader, find_runs
from nnunetv2.comparison.results import Comparability, Comparison
from nnunetv2.comparison.scores import Run, ScoreTable
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.errors import NNUNetError, UsageError
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

SCORES_FOLDER = "scores"  # within the report folder; caches scores for the next run

logger = logging.getLogger(__name__)


def compare(
    dataset: int | str,
    models: Sequence[str],
    output: str | os.PathLike,
    *,
    folds: Sequence[int | str] | None = None,
    settings: CompareSettings | None = None,
    allow: Sequence[str] = (),
    references: str | os.PathLike | None = None,
    num_processes: int | None = None,
    fields: str | os.PathLike | None = None,
    reader: str | None = None,
) -> Comparison:
    """Score trained models on the same cases, test their differences, and write the report.

    Args:
        dataset: number or name.
        models: arguments `[METHOD=]MODEL`, see `nnunetv2.comparison.models.find_runs`.
        output: folder of the report; scores are cached in its subfolder `scores`.
        folds: of the models; None selects every fold that any of them has validated.
        settings: metrics and statistics; None selects the defaults.
        allow: items that may differ between the models, or `all`.
        references: folder of the reference segmentations; None selects those of the dataset.
        num_processes: upper limit for worker processes; by default `nnUNet_def_n_proc` or 8.
        fields: folder with a field of view per case, of any image format; voxels where it is 0 are ignored.
        reader: `[NAME=]FOLDER` with the segmentations of a second reader of the same cases.

    Returns:
        Everything that the report shows.

    Raises:
        NotComparableError: the models were not trained and scored alike; nothing is written.
        UsageError: an unknown model or setting, fewer than two methods, or an output that is a file.
        DataError: unreadable files, predictions on another voxel grid than their reference, or a model of another
            dataset.
    """
    from nnunetv2.comparison.scoring import score_runs
    from nnunetv2.evaluation.field_of_view import field_files

    settings = settings or CompareSettings()
    if Path(output).is_file():
        raise UsageError(f"The output {output} is a file; give a folder")
    require_usable(settings.metrics)
    with _earlier_report_is_told(Path(output)):
        name = maybe_convert_to_dataset_name(dataset)
        runs = find_runs(name, models, None if folds is None else [str(fold) for fold in folds])
        _require_methods(runs, settings.baseline)
        methods, folders = [run.method for run in runs], [run.folder for run in runs]
        second = None if reader is None else find_reader(name, reader, methods, folders)
        everyone = runs if second is None else (*runs, second)
        layout = with_declared_classes(dataset_format(name, runs), settings)
        lacks = declared_lacks(settings.lacks, tuple(dict.fromkeys(run.method for run in everyone)), layout.classes)
        files = reference_files(name, layout.file_ending, None if references is None else Path(references))
        require_known_cases(name, runs, files)
        sheet = comparability(runs, files, allow)
        require_comparable(sheet, case_problems(runs, files))
        cases = common_cases(runs, files)
        if second is not None:
            require_cases(second, cases)
        scores = score_runs(
            everyone,
            {case: files[case] for case in cases},
            layout.classes,
            layout.reader_writer,
            settings,
            layout.ignore_label,
            num_processes,
            Path(output) / SCORES_FOLDER,
            layout.known_labels,
            None if fields is None else field_files(fields, cases),
        )
        scores = replace(scores, length_unit=length_unit(layout.reader_writer, files.values()))
        comparison = _analysed(name, settings, scores, sheet, lacks, None if second is None else second.method)
        _write(comparison, Path(output), files, layout)
        return comparison


@contextmanager
def _earlier_report_is_told(folder: Path) -> Iterator[None]:
    """Warn on failure that the report already in `folder` belongs to an earlier comparison."""
    try:
        yield
    except NNUNetError:
        from nnunetv2.comparison.report.report_files import REPORT

        if (folder / REPORT).is_file():
            logger.warning("%s is of an earlier comparison, and stays as it was", folder / REPORT)
        raise


def _require_methods(runs: Sequence[Run], baseline: str | None) -> None:
    methods = list(dict.fromkeys(run.method for run in runs))
    if len(methods) < 2:
        raise UsageError(f"A comparison needs at least two methods; only {methods[0]} is given")
    if baseline is not None and baseline not in methods:
        near = difflib.get_close_matches(baseline, methods, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"The baseline is {baseline}; accepted are {', '.join(methods)}{hint}")


def _analysed(
    dataset: str,
    settings: CompareSettings,
    everything: ScoreTable,
    sheet: Comparability,
    lacks: Mapping[str, frozenset[str]],
    reader: str | None,
) -> Comparison:
    """Analyse scores; those of the second reader, if there is one, are among `everything`."""
    from nnunetv2.comparison import statistics
    from nnunetv2.comparison.costs import method_costs
    from nnunetv2.comparison.lacking_classes import without_lacking
    from nnunetv2.comparison.reader_agreement import reader_agreement
    from nnunetv2.comparison.training_logs import learning_curves

    scores = everything.of_methods([method for method in everything.methods if method != reader])
    own = {method: names for method, names in lacks.items() if method != reader}
    scores = without_lacking(scores, own, settings.primary_classes)
    pairs = statistics.pairs(scores, settings)
    ranks, stability = statistics.ranks(scores, settings)
    return Comparison(
        dataset=dataset,
        settings=settings,
        scores=scores,
        summaries=statistics.summaries(scores, settings),
        pairs=pairs,
        ranks=ranks,
        stability=stability,
        detection=statistics.detection(scores),
        costs=method_costs(scores.runs),
        comparability=sheet,
        curves=learning_curves(scores.runs),
        reader=None if reader is None else reader_agreement(scores, everything, reader, settings),
    )


def _write(comparison: Comparison, folder: Path, references: Mapping[str, Path], layout: DatasetFormat) -> None:
    from nnunetv2.comparison.report import write_report
    from nnunetv2.comparison.report.case_pictures import worst_case_pictures

    pictures = worst_case_pictures(
        comparison,
        image_files(comparison.dataset),
        references,
        layout.reader_writer,
        layout.classes,
        layout.ignore_label,
    )
    write_report(comparison, folder, pictures)
