"""Select the files of trained models for an archive; the layout is that of upstream nnU-Net."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dinov3.utils.visible_files import visible_files
from nnunetv2.errors import UsageError
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.file_path_utilities import (
    convert_ensemble_folder_to_model_identifiers_and_folds,
    folds_tuple_to_string,
)

logger = logging.getLogger(__name__)

SETTINGS_PATTERN = "*config.yaml"  # settings of the fold, for trainers that have them

_OF_EVERY_MODEL = ("plans.json", "dataset.json")
_OF_SOME_FOLDS = (
    "debug.json",
    "metrics.csv",
    "metrics.jsonl",
    "network_architecture.pdf",
    "network_architecture.txt",
    "progress.png",
)
# Includes plans and dataset.json, as the exported instructions need them for postprocessing.
_RESULTS = ("summary.json", "postprocessing.pkl", "postprocessing.json", *_OF_EVERY_MODEL)
_BEST_CONFIGURATION = ("inference_information.json", "inference_instructions.txt", "inference_information.txt")
_NOT_SHARED = (".npz", ".pkl")  # of validations: probabilities are many times larger than segmentations


@dataclass(frozen=True)
class Selection:
    """Requested parts of a model."""

    folds: Sequence[int | str]
    checkpoints: Sequence[str]
    strict: bool
    """raise an error if anything is missing; otherwise skip it with a warning"""
    predictions: bool
    """also the segmentations of the cross-validation"""


@dataclass(frozen=True)
class ExportedModel:
    """Files of a model folder to export."""

    folder: Path
    checkpoints: list[Path]
    others: list[Path]


def find_model(folder: Path, selection: Selection) -> ExportedModel | None:
    """List the files of a model folder to export; None if the model is missing and may be skipped.

    Raises:
        UsageError: something required is missing.
    """
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in folder.parent.glob("*__*__*"))) or "no trained model"
        _leave_out(f"There is no trained model {folder} ({folder.parent.name} has {there})", selection, "-c, -tr, -p")
        return None
    for name in _OF_EVERY_MODEL:
        if not (folder / name).is_file():
            raise UsageError(f"{folder} has no {name}, so the model is incomplete and cannot predict")
    checkpoints: list[Path] = []
    others: list[Path] = []
    exported_folds = []
    for fold in dict.fromkeys(map(str, selection.folds)):
        check_name(fold, "a fold", UsageError)
        found = _checkpoints(folder / f"fold_{fold}", selection)
        if found:
            exported_folds.append(fold)
            checkpoints += found
            others += _files_of_fold(folder / f"fold_{fold}", selection)
    if not checkpoints:
        return None
    results = folder / f"crossval_results_folds_{folds_tuple_to_string(exported_folds)}"
    others += _results(results, selection.predictions)
    others += [path for name in (*_OF_EVERY_MODEL, "dataset_fingerprint.json") if (path := folder / name).is_file()]
    return ExportedModel(folder, checkpoints, others)


def _checkpoints(fold: Path, selection: Selection) -> list[Path]:
    if not fold.is_dir():
        there = ", ".join(sorted(path.name for path in fold.parent.glob("fold_*"))) or "no folds"
        _leave_out(f"There is no {fold} (the model has {there})", selection, "-f")
        return []
    found = []
    for name in dict.fromkeys(selection.checkpoints):
        check_name(name, "a checkpoint", UsageError)
        if (fold / name).is_file():
            found.append(fold / name)
        else:
            there = ", ".join(sorted(path.name for path in fold.glob("*.pth"))) or "no checkpoint"
            _leave_out(f"{fold} has no {name} (it has {there})", selection, "-chk")
    return found


def _leave_out(what: str, selection: Selection, flags: str) -> None:
    if selection.strict:
        raise UsageError(f"{what}; choose others ({flags}), or leave out what is missing (--not_strict)")
    logger.warning("%s; left out", what)


def _files_of_fold(fold: Path, selection: Selection) -> Iterator[Path]:
    yield from (path for name in _OF_SOME_FOLDS if (path := fold / name).is_file())
    yield from sorted(fold.glob(SETTINGS_PATTERN))
    validation = fold / "validation"
    if not (validation / "summary.json").is_file():
        _leave_out(f"{fold} was not validated: it has no validation/summary.json", selection, "-f")
    yield from (path for path in _results(validation, selection.predictions) if path.suffix not in _NOT_SHARED)


def _results(folder: Path, predictions: bool) -> list[Path]:
    if predictions:
        return visible_files(folder)
    return [path for name in _RESULTS if (path := folder / name).is_file()]


def files_of_dataset(
    dataset_folder: Path, trainer: str, plans: str, configurations: Sequence[str], *, predictions: bool
) -> Iterator[Path]:
    """Yield results of ensembles whose models are all exported, and the files that name the best configuration.

    Args:
        dataset_folder: below `nnUNet_results`.
        configurations: exported ones.
        predictions: also export the segmentations of the ensembles.
    """
    exported = {f"{trainer}__{plans}__{configuration}" for configuration in configurations}
    for ensemble in sorted(dataset_folder.glob("ensembles/ensemble___*")):
        models, _ = convert_ensemble_folder_to_model_identifiers_and_folds(ensemble)
        if exported.issuperset(models):
            yield from _results(ensemble, predictions)
    yield from (path for name in _BEST_CONFIGURATION if (path := dataset_folder / name).is_file())
