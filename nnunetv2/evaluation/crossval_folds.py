"""Find the validations of a model's folds, and name the command that creates missing ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dinov3.utils.atomic_files import read_json
from dinov3.utils.visible_files import visible_files
from nnunetv2.errors import DataError, UsageError
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.file_path_utilities import parse_dataset_trainer_plans_configuration_from_path
from nnunetv2.utilities.message_parts import command_text, counted
from nnunetv2.utilities.training_commands import command_of_model

Fold = int | str
_SHOWN_CASES = 4


def training_command(model_folder: str | os.PathLike, fold: Fold, flags: str = "") -> str:
    """Format the command that trains a fold of a model, or only validates it with the flags `--val --npz`.

    Models with settings have their own commands: a new fold gets the settings of the other folds, `--val` uses those
    stored with the fold.
    """
    try:
        names = parse_dataset_trainer_plans_configuration_from_path(model_folder)
    except UsageError:  # a folder outside nnUNet_results
        names = ("DATASET", "TRAINER", "PLANS", "CONFIGURATION")
    dataset, trainer, plans, configuration = names
    command, settings = command_of_model(Path(model_folder))
    words = [command.program, dataset, configuration, fold, "-tr", trainer, "-p", plans, *flags.split()]
    if settings is not None and "--val" not in flags:
        words += [command.config_flag, settings]
    return command_text(words)


def _commands(model_folder: str | os.PathLike, folds: Sequence[Fold], flags: str) -> str:
    return "; ".join(training_command(model_folder, fold, flags) for fold in folds)


def validated_segmentations(model_folder: str | os.PathLike, folds: Sequence[Fold], file_ending: str) -> dict[str, str]:
    """Find the validation segmentations of a model's folds, by case.

    Raises:
        DataError: a fold has none, or a case is in two folds.
    """
    return _validated(model_folder, folds, lambda fold: _segmentations(model_folder, fold, file_ending))


def validated_probabilities(model_folder: str | os.PathLike, folds: Sequence[Fold]) -> dict[str, str]:
    """Find the validation probabilities (`.npz`) of a model's folds, by case.

    Raises:
        DataError: a fold was not validated with probabilities, or a case is in two folds.
    """
    lacking = [fold for fold in folds if _has_validation(model_folder, fold) and not _files(model_folder, fold, ".npz")]
    if lacking:
        raise DataError(
            f"{os.fspath(model_folder)} has no probabilities (.npz) of fold {_listed(lacking)}, which ensembling "
            f"needs; make them with: {_commands(model_folder, lacking, '--val --npz')}"
        )
    return _validated(model_folder, folds, lambda fold: _files(model_folder, fold, ".npz"))


def require_all_probabilities(model_folder: str | os.PathLike, folds: Sequence[Fold], file_ending: str) -> None:
    """Reject a model if any validation segmentation lacks its probabilities.

    Raises:
        DataError: names the cases, the fold and the command that creates them.
    """
    validated_probabilities(model_folder, folds)
    for fold in folds:
        probabilities = _files(model_folder, fold, ".npz")
        lacking = sorted(_files(model_folder, fold, file_ending).keys() - probabilities.keys())
        if lacking:
            raise DataError(
                f"Fold {fold} of {os.fspath(model_folder)} has no probabilities (.npz) of {_listed(lacking)}, which "
                f"ensembling needs; make them with: {training_command(model_folder, fold, '--val --npz')}"
            )


def folds_without_checkpoint(model_folder: str | os.PathLike, folds: Sequence[Fold]) -> list[Fold]:
    """Folds that can be scored but cannot predict, e.g. after training with `--disable_checkpointing`."""
    return [fold for fold in folds if not any(Path(model_folder, f"fold_{fold}").glob("checkpoint_*.pth"))]


def require_same_cases(cases_of_models: Mapping[str, Mapping[str, str]]) -> None:
    """Reject models validated on different cases, whose scores are not comparable.

    Args:
        cases_of_models: files by case, for each model folder.

    Raises:
        DataError: names a model and the cases that it lacks.
    """
    everything = {case for files in cases_of_models.values() for case in files}
    for model, files in cases_of_models.items():
        lacking = sorted(everything - files.keys())
        if lacking:
            raise DataError(
                f"The models were validated on different cases: in these folds {model} has no prediction of "
                f"{_listed(lacking)}, which another model has; train all models with the same splits_final.json, or if "
                f"a validation was interrupted, repeat it with: {training_command(model, 'FOLD', '--val --npz')}"
            )


def ground_truth_folder(dataset_name: str) -> str:
    """Folder of a dataset's reference segmentations: the preprocessed ones, falling back to the raw dataset.

    Raises:
        DataError: neither exists.
    """
    candidates = []
    if nnUNet_preprocessed.is_set():
        candidates.append(os.path.join(nnUNet_preprocessed, dataset_name, "gt_segmentations"))
    if nnUNet_raw.is_set():
        candidates.append(os.path.join(nnUNet_raw, dataset_name, "labelsTr"))
    for folder in candidates:
        if os.path.isdir(folder):
            return folder
    places = " nor ".join(candidates) or "folder for them, as nnUNet_preprocessed and nnUNet_raw are not set"
    raise DataError(f"The references of {dataset_name} are missing, there is no {places}; preprocess the dataset first")


def _validated(
    model_folder: str | os.PathLike, folds: Sequence[Fold], files_of_fold: Callable[[Fold], dict[str, str]]
) -> dict[str, str]:
    if not folds:
        raise UsageError("No fold was given; name at least one (-f)")
    _require_each_once(folds)
    untrained = [fold for fold in folds if not _has_validation(model_folder, fold)]
    if untrained:
        _require_in_splits(model_folder, untrained)
        raise DataError(
            f"{os.fspath(model_folder)} has no validation of fold {_listed(untrained)} "
            f"(fold_{untrained[0]}/validation); train it with: {_commands(model_folder, untrained, '--npz')}"
        )
    found: dict[str, str] = {}
    for fold in folds:
        files = files_of_fold(fold)
        for case in sorted(files.keys() & found.keys()):
            raise DataError(
                f"{os.fspath(model_folder)} validated case {case} in two folds: {found[case]} and {files[case]}; the "
                f"folds of a cross-validation must not share cases, so train those that were trained with an older "
                f"splits_final.json again: their networks have seen cases of the new ones"
            )
        found |= files
    return found


def _require_each_once(folds: Sequence[Fold]) -> None:
    repeated = [fold for fold in dict.fromkeys(folds) if list(folds).count(fold) > 1]
    if repeated:
        raise UsageError(f"Fold {_listed(repeated)} was given more than once; name each fold once (-f)")


def _require_in_splits(model_folder: str | os.PathLike, folds: Sequence[Fold]) -> None:
    """Reject folds that cannot be trained because the dataset's splits, if known, do not contain them."""
    num_splits = _number_of_splits(model_folder)
    absent = [fold for fold in folds if num_splits is not None and isinstance(fold, int) and fold >= num_splits]
    if absent:
        raise UsageError(
            f"{os.fspath(model_folder)} has no validation of fold {_listed(absent)}, and the splits of its dataset "
            f"(splits_final.json) have {counted(num_splits, 'fold')}; give -f {' '.join(map(str, range(num_splits)))}"
        )


def _number_of_splits(model_folder: str | os.PathLike) -> int | None:
    if not nnUNet_preprocessed.is_set():
        return None
    try:
        dataset = parse_dataset_trainer_plans_configuration_from_path(model_folder)[0]
    except UsageError:
        return None
    path = Path(nnUNet_preprocessed, dataset, "splits_final.json")
    splits = read_json(path) if path.is_file() else None
    return len(splits) if isinstance(splits, list) and splits else None


def _segmentations(model_folder: str | os.PathLike, fold: Fold, file_ending: str) -> dict[str, str]:
    files = _files(model_folder, fold, file_ending)
    if not files:
        raise DataError(
            f"There is no segmentation (*{file_ending}) in {Path(model_folder, f'fold_{fold}', 'validation')}; "
            f"validate the fold with: {training_command(model_folder, fold, '--val --npz')}"
        )
    return files


def _has_validation(model_folder: str | os.PathLike, fold: Fold) -> bool:
    return Path(model_folder, f"fold_{fold}", "validation").is_dir()


def _files(model_folder: str | os.PathLike, fold: Fold, ending: str) -> dict[str, str]:
    folder = Path(model_folder, f"fold_{fold}", "validation")
    return {path.name.removesuffix(ending): str(path) for path in visible_files(folder, ending)}


def _listed(entries: Sequence[object]) -> str:
    more = f" and {len(entries) - _SHOWN_CASES} more" if len(entries) > _SHOWN_CASES else ""
    return ", ".join(str(entry) for entry in entries[:_SHOWN_CASES]) + more
