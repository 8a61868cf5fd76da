"""What the stages of a cascade need of each other: segmentations by one, preprocessed cases by the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import UsageError
from nnunetv2.evaluation.crossval_folds import training_command
from nnunetv2.training.dataloading.splits import SPLITS_FILE
from nnunetv2.training.state.checkpoint import FINAL
from nnunetv2.utilities.message_parts import preprocessing_command
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

_NUM_SHOWN = 5


def require_previous_segmentations(
    folder: str | os.PathLike | None, identifiers: Sequence[str], previous_stage: str, dataset: str
) -> None:
    """Refuses to go on without the previous stage's segmentation of every case.

    A fold of the previous stage segments its own validation cases, so that no case is segmented by a network that was
    trained on it. Hence one fold of the next stage needs all folds of the previous one.

    Args:
        folder: where the previous stage writes them, `MODEL/predicted_next_stage/CONFIGURATION`; None outside the
            later stages of a cascade, which need none.
        identifiers: the cases that are wanted; repeated ones count once.
        previous_stage: name of its configuration.
        dataset: preprocessed folder of the dataset, which holds the splits.

    Raises:
        UsageError: with the cases and the commands that make them.
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
    """The folds, as few as possible in their order, that validate on the cases; none if there are no splits yet."""
    splits_file = Path(dataset, SPLITS_FILE)
    if not splits_file.is_file():
        return []
    wanted, folds = set(cases), []
    for fold, split in enumerate(read_json(splits_file)):
        if wanted & set(split["val"]):
            folds.append(fold)
            wanted -= set(split["val"])
    return folds


def _commands(folds: Sequence[int], model_folder: Path) -> str:
    """One command per fold; a fold that is trained already only has to validate."""
    if not folds:
        return f"{training_command(model_folder, 'FOLD')} for each fold"
    are_trained = [(model_folder / f"fold_{fold}" / FINAL).is_file() for fold in folds]
    return "; ".join(
        training_command(model_folder, fold, "--val" if is_trained else "")
        for fold, is_trained in zip(folds, are_trained, strict=True)
    )


def unprepared_next_stages(dataset: str, plans: PlansManager, configuration: ConfigurationManager) -> list[str]:
    """One warning for each next stage whose cases are not preprocessed, so that no input can be written for it.

    Args:
        dataset: preprocessed folder of the dataset.
        configuration: of the stage that is trained.
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
