"""Checks that the stages of a cascade have each other's inputs: segmentations and preprocessed cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.errors import UsageError
from nnunetv2.evaluation.crossval_folds import training_command
from nnunetv2.training.state.checkpoint import FINAL
from nnunetv2.utilities.message_parts import preprocessing_command
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.splits_file import SPLITS_FILE, read_splits

_NUM_SHOWN = 5


def require_previous_segmentations(
    folder: str | os.PathLike | None, identifiers: Sequence[str], previous_stage: str, dataset: str
) -> None:
    """Requires the previous stage's segmentation of every case.

    Each fold of the previous stage segments its own validation cases, so that no case is segmented by a network trained
    on it. One fold of the next stage therefore needs all folds of the previous stage.

    Args:
        folder: output folder of the previous stage, `MODEL/predicted_next_stage/CONFIGURATION`; None outside later
            stages of a cascade: nothing is required.
        identifiers: required cases; duplicates count once.
        previous_stage: name of its configuration.
        dataset: preprocessed folder of the dataset, which holds the splits.

    Raises:
        UsageError: segmentations are missing; the message lists the cases and the commands that create them.
    """
    if folder is None:
        return
    there = {Path(name).stem for name in os.listdir(folder)} if os.path.isdir(folder) else set()
    wanted = set(identifiers)
    missing = sorted(wanted - there)
    if not missing:
        return
    shown = ", ".join(missing[:_NUM_SHOWN]) + (", ..." if len(missing) > _NUM_SHOWN else "")
    commands = _commands(_folds_that_validate(missing, dataset), Path(folder).parents[1])
    raise UsageError(
        f"This stage of the cascade starts from the segmentations of {previous_stage}, and those of {len(missing)} of "
        f"{len(wanted)} cases are not in {folder} ({shown}). Every fold of {previous_stage} writes them for its "
        f"validation cases; run: {commands}"
    )


def _folds_that_validate(cases: Sequence[str], dataset: str) -> list[int]:
    """Returns the folds, in order, whose validation splits cover the cases; empty if there are no splits yet."""
    splits_file = Path(dataset, SPLITS_FILE)
    if not splits_file.is_file():
        return []
    wanted, folds = set(cases), []
    for fold, split in enumerate(read_splits(splits_file)):
        if wanted & set(split["val"]):
            folds.append(fold)
            wanted -= set(split["val"])
    return folds


def _commands(folds: Sequence[int], model_folder: Path) -> str:
    """Returns one command per fold; a trained fold only has to validate."""
    if not folds:
        return f"{training_command(model_folder, 'FOLD')} for each fold"
    are_trained = [(model_folder / f"fold_{fold}" / FINAL).is_file() for fold in folds]
    return "; ".join(
        training_command(model_folder, fold, "--val" if is_trained else "")
        for fold, is_trained in zip(folds, are_trained, strict=True)
    )


def unprepared_next_stages(dataset: str, plans: PlansManager, configuration: ConfigurationManager) -> list[str]:
    """Returns one warning per next stage whose cases are not preprocessed, as its input cannot be written.

    Args:
        dataset: preprocessed folder of the dataset.
        configuration: configuration of the trained stage.
    """
    warnings = []
    for stage in configuration.next_stage_names or ():
        folder = Path(dataset, plans.get_configuration(stage).data_identifier)
        if not folder.is_dir():
            warnings.append(
                f"The next stage of the cascade, {stage}, is not preprocessed ({folder} is not there). The validation "
                f"of this training writes its input only if that is done before it begins: "
                f"{preprocessing_command(plans.dataset_name, plans.plans_name, [stage])}"
            )
    return warnings
