"""The scored cases: those that every run predicted, with their images, references and the classes of the dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dinov3.utils.visible_files import visible_files
from nnunetv2.comparison.declared_classes import chosen, declared_regions
from nnunetv2.comparison.models import dataset_description
from nnunetv2.comparison.protocol_sources import FoldSources
from nnunetv2.comparison.runs import fold_folder, fold_order, folds_of, listed, run_names
from nnunetv2.comparison.scores import Run
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.errors import DataError, NNUNetError
from nnunetv2.evaluation.crossval_folds import ground_truth_folder
from nnunetv2.paths import nnUNet_raw
from nnunetv2.training.protocol.hashes import cases_description
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

if TYPE_CHECKING:
    from nnunetv2.evaluation.confusion import LabelOrRegion
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

CASES, SPLITS, REFERENCES = "cases", "splits", "references"  # `--allow` items for the problems found here
ALLOW_ALL = "all"
PREFIX = "NOT COMPARABLE: "

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetFormat:
    """Classes of a dataset and the storage format of its segmentations; picklable, for worker processes."""

    classes: Mapping[str, LabelOrRegion]
    """foreground labels, or regions if the dataset defines them, by their names in dataset.json"""
    ignore_label: int | None
    reader_writer: BaseReaderWriter
    file_ending: str
    labels: Mapping[str, int]
    """number of each label by its name in dataset.json, or by its number if only regions are named"""
    known_labels: frozenset[int]
    """values that a segmentation may have, background and ignore label included"""


@dataclass(frozen=True)
class CaseProblem:
    """One reason why the predictions cannot be compared case by case."""

    item: str
    text: str


def dataset_format(dataset: str, runs: Sequence[Run]) -> DatasetFormat:
    """Return the classes and the reader of a dataset.

    The plans of the first model select the reader. Without a model, dataset.json and the files do.

    Raises:
        DataError: dataset.json is missing or invalid.
    """
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.label_handling.output_names import foreground_names, named_labels

    models = [run.folder for run in runs if run.is_model]
    description = dataset_description(maybe_convert_to_dataset_name(dataset), models)
    labels = LabelManager(description["labels"], description.get("regions_class_order"), allow_lost_regions=True)
    return DatasetFormat(
        classes={name: label for label, name in foreground_names(labels).items()},
        ignore_label=labels.ignore_label,
        reader_writer=_reader(models, description, runs),
        file_ending=description["file_ending"],
        labels=named_labels(labels),
        known_labels=frozenset(
            {0, *labels.all_labels, *([] if labels.ignore_label is None else [labels.ignore_label])}
        ),
    )


def with_declared_classes(layout: DatasetFormat, settings: CompareSettings) -> DatasetFormat:
    """Replace the classes of a dataset by the regions of the settings, and keep those that they choose.

    Raises:
        UsageError: a region or class is not one of the dataset.
    """
    classes = dict(layout.classes)
    if settings.regions:
        classes = declared_regions(settings.regions, layout.labels, layout.ignore_label)
    if settings.classes:
        classes = {name: classes[name] for name in chosen("--classes", settings.classes, classes)}
    chosen("--primary (a metric or class)", settings.primary_classes, classes)
    chosen("--among", settings.among, classes)
    return replace(layout, classes=classes)


def length_unit(reader: BaseReaderWriter, references: Iterable[Path]) -> str:
    """`px` if no reference has a spacing, else `mm`."""
    return "mm" if any(reader.has_spacing(str(path)) for path in references) else "px"


def _reader(models: Sequence[Path], description: dict, runs: Sequence[Run]) -> BaseReaderWriter:
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    for folder in models:
        if (folder / "plans.json").is_file():
            return PlansManager(folder / "plans.json").image_reader_writer_class()
    predictions = [str(path) for run in runs for path in run.predictions.values()]
    return determine_reader_writer_from_dataset_json(description, predictions, verbose=False)()


def reference_files(dataset: str, file_ending: str, folder: Path | None = None) -> dict[str, Path]:
    """Find the reference segmentation of each case.

    Args:
        folder: holds the references; None selects the training labels of the dataset.

    Raises:
        DataError: the folder has no segmentations.
    """
    place = Path(ground_truth_folder(maybe_convert_to_dataset_name(dataset))) if folder is None else folder
    files = visible_files(place, file_ending)
    if not files:
        raise DataError(f"There is no reference segmentation (*{file_ending}) in {place}; name their folder with -ref")
    return {path.name.removesuffix(file_ending): path for path in files}


def image_files(dataset_name: str) -> dict[str, tuple[Path, ...]]:
    """Find the image files of every training case, one per channel; empty if the raw dataset is not available.

    A raw dataset without images only triggers a warning, since a comparison works without them.
    """
    if not nnUNet_raw.is_set():
        return {}
    folder = Path(nnUNet_raw) / dataset_name
    if not (folder / "dataset.json").is_file():
        return {}
    try:
        cases = get_filenames_of_train_images_and_targets(folder)
    except NNUNetError as err:
        _log.warning("Cases are shown without their images: %s", err)
        return {}
    return {case: tuple(map(Path, files["images"])) for case, files in cases.items()}


def require_known_cases(dataset: str, runs: Sequence[Run], references: Mapping[str, Path]) -> None:
    """Reject runs on another dataset first, since every other check would fail on them as well.

    Raises:
        DataError: none of a run's cases has a reference.
    """
    for run, name in zip(runs, run_names(runs), strict=True):
        if not run.predictions.keys() & references.keys():
            raise DataError(
                f"No case of {name} ({listed(sorted(run.predictions))}) has a reference in {dataset}; name models that "
                f"were trained on it, another dataset with -d, or the folder of their references with -ref"
            )


def common_cases(runs: Sequence[Run], references: Mapping[str, Path]) -> tuple[str, ...]:
    """Sorted identifiers of the cases that have a reference and were predicted by every run.

    Raises:
        DataError: there are none.
    """
    common = set(references).intersection(*(run.predictions for run in runs))
    if not common:
        raise DataError("There is no case that all models predicted and that has a reference")
    return tuple(sorted(common))


def require_cases(run: Run, cases: Sequence[str]) -> None:
    """Raise `DataError` if a second reader lacks one of the compared cases."""
    missing = [case for case in cases if case not in run.predictions]
    if missing:
        raise DataError(
            f"{run.folder} (--reader) has no segmentation of {listed(missing)}; a second reader is compared on the "
            f"{len(cases)} cases of the models"
        )


def case_problems(runs: Sequence[Run], references: Mapping[str, Path]) -> tuple[CaseProblem, ...]:
    """List why the runs do not cover the same cases in the same way; empty if they do."""
    names = run_names(runs)
    return (
        *_missing_cases(runs, names),
        *_other_splits(runs, names),
        *_not_set_apart(runs, names),
        *_without_reference(runs, names, references),
    )


def _missing_cases(runs: Sequence[Run], names: Sequence[str]) -> Iterator[CaseProblem]:
    everything = {case for run in runs for case in run.predictions}
    for run, name in zip(runs, names, strict=True):
        missing = sorted(everything - run.predictions.keys())
        if missing:
            text = f"{name} has no prediction of {listed(missing)}, which another model has"
            yield CaseProblem(CASES, f"{text}; complete its validation, or choose folds that all models have (-f)")


def _other_splits(runs: Sequence[Run], names: Sequence[str]) -> Iterator[CaseProblem]:
    models = [(run, name) for run, name in zip(runs, names, strict=True) if run.is_model]
    # Report only the first model that each model differs from: five deviating models give four lines, not ten.
    for position, (run, name) in enumerate(models):
        for other, other_name in models[:position]:
            text = _moved_cases(run, name, other, other_name) or _other_folds(run, name, other, other_name)
            if text:
                yield CaseProblem(SPLITS, f"{text}; train all models with one splits_final.json")
                break


def _moved_cases(run: Run, name: str, other: Run, other_name: str) -> str | None:
    shared = sorted(run.fold_of.keys() & other.fold_of.keys())
    moved = [case for case in shared if run.fold_of[case] != other.fold_of[case]]
    if not moved:
        return None
    places = [f"{case} (fold {run.fold_of[case]} against {other.fold_of[case]})" for case in moved]
    return f"{name} and {other_name} validated cases in different folds: {listed(places)}"


def _other_folds(run: Run, name: str, other: Run, other_name: str) -> str | None:
    for fold in sorted(set(folds_of(run)) & set(folds_of(other)), key=fold_order):
        own, others = ({case for case, place in each.fold_of.items() if place == fold} for each in (run, other))
        if own - others and others - own:  # a one-sided difference means an incomplete run, reported elsewhere
            alone, others_alone = listed(sorted(own - others)), listed(sorted(others - own))
            return f"in fold {fold} {name} alone validated {alone}, and {other_name} alone {others_alone}"
    return None


def _not_set_apart(runs: Sequence[Run], names: Sequence[str]) -> Iterator[CaseProblem]:
    """Report folds whose validation cases differ from those held out in training, as after a change of the splits."""
    for run, name in zip(runs, names, strict=True):
        for fold in folds_of(run):
            recorded = (FoldSources(fold_folder(run, fold)).run_line.get("split") or {}).get("validation")
            found = cases_description(case for case, place in run.fold_of.items() if place == fold)
            if recorded and found["num_cases"] >= recorded["num_cases"] and found != recorded:
                text = f"fold {fold} of {name} validated other cases than its training left out"
                yield CaseProblem(SPLITS, f"{text}, so it may have seen some of them; train it again")


def _without_reference(
    runs: Sequence[Run], names: Sequence[str], references: Mapping[str, Path]
) -> Iterator[CaseProblem]:
    for run, name in zip(runs, names, strict=True):
        unknown = sorted(run.predictions.keys() - references.keys())
        if unknown:
            yield CaseProblem(REFERENCES, f"{name} predicted {listed(unknown)}, of which there is no reference")
