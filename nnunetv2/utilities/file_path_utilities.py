"""Names of model folders, fold folders and ensembles, and the parsing of such names and paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.errors import UsageError
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.processes.worker_pool import check_workers_alive_and_busy as check_workers_alive_and_busy

_MODEL_FOLDER = "TRAINER__PLANS__CONFIGURATION"
# The one trainer whose name has the separator; all other names end before the first.
_TRAINER_WITH_SEPARATOR = "PretrainedTrainer_adam__nomirroring"
# Plans made for a checkpoint have the separators of ensembles in their names.
_IN_PLANS = {"____Spacing__": "\0S", "___Norm__": "\0N"}


def convert_trainer_plans_config_to_identifier(trainer_name: str, plans_identifier: str, configuration: str) -> str:
    """Format the name of a model folder."""
    return f"{trainer_name}__{plans_identifier}__{configuration}"


def convert_identifier_to_trainer_plans_config(identifier: str | os.PathLike) -> list[str]:
    """Parse the name or path of a model folder as [trainer, plans, configuration]."""
    parts = _parts_of_model(Path(identifier).name)
    if parts is None:
        raise UsageError(f"{os.fspath(identifier)!r} is not a model folder; its name must be {_MODEL_FOLDER}")
    return parts


def _parts_of_model(name: str) -> list[str] | None:
    """[trainer, plans, configuration] of a model folder, whose plans may have the separator in their name; or None."""
    first, _, rest = name.partition("__")
    if name.startswith(f"{_TRAINER_WITH_SEPARATOR}__"):
        first, rest = _TRAINER_WITH_SEPARATOR, name.removeprefix(f"{_TRAINER_WITH_SEPARATOR}__")
    plans, _, configuration = rest.rpartition("__")
    parts = [first, plans, configuration]
    return parts if all(parts) else None


def get_output_folder(
    dataset_name_or_id: str | int,
    trainer_name: str = "nnUNetTrainer",
    plans_identifier: str = "nnUNetPlans",
    configuration: str = "3d_fullres",
    fold: str | int | None = None,
) -> str:
    """Path of a model folder in `nnUNet_results`, or of one of its folds.

    Raises:
        UsageError: an argument is not valid as part of a folder name, or the dataset is unknown.
    """
    for name, what in ((trainer_name, "a trainer"), (plans_identifier, "plans"), (configuration, "a configuration")):
        check_name(name, what, UsageError)
    if fold is not None:
        check_name(str(fold), "a fold", UsageError)
    folder = os.path.join(
        nnUNet_results,
        maybe_convert_to_dataset_name(dataset_name_or_id),
        convert_trainer_plans_config_to_identifier(trainer_name, plans_identifier, configuration),
    )
    return folder if fold is None else os.path.join(folder, f"fold_{fold}")


def parse_dataset_trainer_plans_configuration_from_path(path: str | os.PathLike) -> tuple[str, str, str, str]:
    """Parse (dataset, trainer, plans, configuration) from the path of a model folder or of something inside it.

    Raises:
        UsageError: the path does not contain DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION.
    """
    parts = Path(path).parts
    for dataset, model in reversed(list(zip(parts, parts[1:], strict=False))):
        names = _parts_of_model(model)
        if dataset.startswith("Dataset") and names is not None:
            return dataset, *names
    raise UsageError(f"{os.fspath(path)!r} does not lead through DatasetXXX_Name/{_MODEL_FOLDER}")


def get_ensemble_name(model1_folder: str, model2_folder: str, folds: Sequence[int | str]) -> str:
    """Format the folder name of an ensemble of two models."""
    models = "___".join(Path(folder).name for folder in (model1_folder, model2_folder))
    return f"ensemble___{models}___{folds_tuple_to_string(folds)}"


def get_ensemble_name_from_d_tr_c(
    dataset: str | int, tr1: str, p1: str, c1: str, tr2: str, p2: str, c2: str, folds: Sequence[int | str]
) -> str:
    """Format the folder name of an ensemble of two models of one dataset."""
    return get_ensemble_name(get_output_folder(dataset, tr1, p1, c1), get_output_folder(dataset, tr2, p2, c2), folds)


def convert_ensemble_folder_to_model_identifiers_and_folds(ensemble_folder: str | os.PathLike) -> tuple[list[str], str]:
    """Parse the folder of an ensemble as the names of its model folders and its folds, as text."""
    name = Path(ensemble_folder).name
    for inside, mark in _IN_PLANS.items():
        name = name.replace(inside, mark)
    parts = name.split("___")
    for inside, mark in _IN_PLANS.items():
        parts = [part.replace(mark, inside) for part in parts]
    if parts[0] != "ensemble" or len(parts) < 3:
        raise UsageError(
            f"{os.fspath(ensemble_folder)!r} is not an ensemble; its name must be ensemble___A___B___FOLDS"
        )
    return parts[1:-1], parts[-1]


def folds_tuple_to_string(folds: Sequence[int | str]) -> str:
    """Join folds for a folder name: (0, 1, 4) becomes `0_1_4`."""
    return "_".join(str(fold) for fold in folds)


def folds_string_to_tuple(folds_string: str) -> list[int | str]:
    """Split text such as `0_1_4` into folds; non-numeric parts such as `all` remain text."""
    return [int(fold) if fold.isdecimal() else fold for fold in folds_string.split("_")]
