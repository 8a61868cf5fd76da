"""Write plans and what lies beside them, without losing what users put there."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json, replace_when_complete, write_json
from nnunetv2.errors import DataError
from nnunetv2.experiment_planning.experiment_planners.changed_preprocessing import warn_of_outdated_cases

logger = logging.getLogger(__name__)


def write_plans(plans: dict[str, Any], plans_file: str | os.PathLike) -> dict[str, Any]:
    """Writes plans and returns what the file now holds.

    Configurations that an older file has under other names (a user's own) are kept, after the planned ones.
    """
    plans_file = Path(plans_file)
    older = read_json(plans_file) if plans_file.is_file() else None
    if older is not None:
        planned = plans["configurations"]
        kept = {name: entry for name, entry in older["configurations"].items() if name not in planned}
        plans = {**plans, "configurations": {**planned, **kept}}
    plans_file.parent.mkdir(parents=True, exist_ok=True)
    write_json(plans, plans_file)
    logger.info("Plans were written to %s", plans_file)
    if older is not None:
        warn_of_outdated_cases(older, plans, plans_file.stem, plans_file.parent)
    return read_json(plans_file)


def copy_file(source: str | os.PathLike, target: str | os.PathLike, *, only_if_newer: bool = False) -> None:
    """Copies a file with its time stamp, in one step for whoever reads it.

    Args:
        source, target: files; the folder of `target` must exist.
        only_if_newer: leave a target that is at least as new as it is.
    """
    if only_if_newer and Path(target).is_file() and os.stat(target).st_mtime >= os.stat(source).st_mtime:
        return
    with replace_when_complete(target) as temporary:
        shutil.copyfile(source, temporary)
        shutil.copystat(source, temporary)


def copy_dataset_files(raw_folder: Path, preprocessed_folder: Path) -> None:
    """Copies dataset.json, and the splits if the raw dataset comes with some, to where training reads them.

    Raises:
        DataError: see `copy_splits`.
    """
    preprocessed_folder.mkdir(parents=True, exist_ok=True)
    if (raw_folder / "splits_final.json").is_file():
        copy_splits(raw_folder / "splits_final.json", preprocessed_folder / "splits_final.json")
    copy_file(raw_folder / "dataset.json", preprocessed_folder / "dataset.json")


def copy_splits(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copies the splits that come with a raw dataset, or checks that those in use agree with them.

    Raises:
        DataError: a fold of `source` has other cases in `target`. `target` may have further folds.
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
