"""Writes plans and accompanying files; keeps users' own entries and warns about outdated preprocessed cases."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json, replace_when_complete, write_json
from nnunetv2.errors import DataError, NNUNetError
from nnunetv2.utilities.message_parts import preprocessing_command
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.plans_handling.plans_schema import read_plans

_OF_CONFIGURATION = (
    "data_identifier",
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
_WITHOUT_DATASET_STATISTICS = (
    "NoNormalization",
    "RGBTo01Normalization",
    "RescaleTo01Normalization",
    "ZScoreNormalization",
)
_DIGITS = 6  # significant digits; statistics from another machine may differ in the last ones

logger = logging.getLogger(__name__)


def write_plans(plans: dict[str, Any], plans_file: str | os.PathLike) -> dict[str, Any]:
    """Writes plans and returns the content of the file.

    Configurations of an older file under other names (a user's own) are kept, after the planned ones.
    """
    plans_file = Path(plans_file)
    older = read_plans(plans_file) if plans_file.is_file() else None
    if older is not None:
        planned = plans["configurations"]
        kept = {name: entry for name, entry in older.get("configurations", {}).items() if name not in planned}
        plans = {**plans, "configurations": {**planned, **kept}}
    plans_file.parent.mkdir(parents=True, exist_ok=True)
    write_json(plans, plans_file)
    logger.info("Plans were written to %s", plans_file)
    if older is not None:
        warn_of_outdated_cases(older, plans, plans_file.stem, plans_file.parent)
    return read_plans(plans_file)


def copy_file(source: str | os.PathLike, target: str | os.PathLike, *, only_if_newer: bool = False) -> None:
    """Copies a file with its time stamp, atomically for readers.

    Args:
        source, target: files; the folder of `target` must exist.
        only_if_newer: keep a target that is at least as new as the source.
    """
    if only_if_newer and Path(target).is_file() and os.stat(target).st_mtime >= os.stat(source).st_mtime:
        return
    with replace_when_complete(target) as temporary:
        shutil.copyfile(source, temporary)
        shutil.copystat(source, temporary)


def copy_dataset_files(raw_folder: Path, preprocessed_folder: Path) -> None:
    """Copies dataset.json, and splits if the raw dataset has them, to the folder that training reads.

    Raises:
        DataError: see `copy_splits`.
    """
    preprocessed_folder.mkdir(parents=True, exist_ok=True)
    if (raw_folder / "splits_final.json").is_file():
        copy_splits(raw_folder / "splits_final.json", preprocessed_folder / "splits_final.json")
    copy_file(raw_folder / "dataset.json", preprocessed_folder / "dataset.json")


def copy_splits(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copies the splits of a raw dataset, or checks that existing splits agree with them.

    Raises:
        DataError: a fold of `source` has other cases in `target`; `target` may have additional folds.
    """
    if not Path(target).is_file():
        copy_file(source, target)
        return
    wanted, used = read_json(source), read_json(target)
    for fold, split in enumerate(wanted):
        same = fold < len(used) and all(set(split[part]) == set(used[fold][part]) for part in ("train", "val"))
        if not same:
            raise DataError(
                f"Fold {fold} of {source} differs from {target}, which trainings may have used; "
                "delete the file that is not wanted"
            )


def warn_of_outdated_cases(older: dict[str, Any], newer: dict[str, Any], plans_name: str, folder: Path) -> None:
    """Warns, in one line, about existing cases that the newer plans would preprocess differently.

    Args:
        older, newer: plans of the same name.
        plans_name: name of the plans file without ending.
        folder: folder of the preprocessed dataset.
    """
    outdated: dict[str, str] = {}  # by folder: the configurations of a cascade share one
    for name in newer["configurations"]:
        before, after = _preprocessing(older, name), _preprocessing(newer, name)
        if before is None or after is None or before == after:
            continue
        identifier = after["data_identifier"]
        if identifier is not None and (folder / identifier).is_dir():
            outdated.setdefault(identifier, name)
    if outdated:
        logger.warning(
            "The cases in %s of %s were preprocessed with other settings; unless nnUNetv2_plan_and_preprocess does it "
            "next, run %s before you train",
            ", ".join(outdated),
            folder,
            preprocessing_command(folder.name, plans_name, list(outdated.values())),
        )


def _preprocessing(plans: dict[str, Any], configuration: str) -> dict[str, Any] | None:
    """Returns the entries that determine the preprocessed cases; None if the plans lack them."""
    try:
        entry = PlansManager(plans).get_configuration(configuration).configuration
    except NNUNetError:
        return None
    settings = {key: entry.get(key) for key in _OF_CONFIGURATION}
    settings["transpose_forward"] = plans.get("transpose_forward")
    if not set(entry.get("normalization_schemes") or ()) <= set(_WITHOUT_DATASET_STATISTICS):
        settings["statistics"] = plans.get("foreground_intensity_properties_per_channel")
    return _rounded(settings)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
