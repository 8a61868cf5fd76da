"""Finds the checkpoints in a model folder; needs no torch, so that commands can reject wrong names at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.file_names import check_name

FOLD_PREFIX = "fold_"


def checkpoints_of_folds(
    folder: str | os.PathLike, folds: Sequence[int | str] | int | str | None, checkpoint_name: str
) -> list[Path]:
    """Returns the checkpoint of each fold.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`.
        folds: numbers, or "all" for the fold of that name; None: every numbered fold that has the checkpoint.

    Raises:
        UsageError: the folder, a fold or the checkpoint does not exist.
        DataError: the folder has no plans.json or dataset.json.
    """
    folder = Path(folder)
    _require_model_folder(folder)
    if folds is None:
        folds = available_folds(folder, checkpoint_name)
    elif isinstance(folds, (int, str)):
        folds = [folds]
    paths = [_checkpoint_path(folder, fold, checkpoint_name) for fold in folds]
    if not paths:
        raise UsageError(f"No fold of {folder} has a {checkpoint_name}; {_describe_folds(folder)}")
    return paths


def available_folds(folder: str | os.PathLike, checkpoint_name: str) -> list[int]:
    """Numbers of the folds that have the checkpoint, in ascending order, excluding `fold_all`."""
    folds = [path.parent.name[len(FOLD_PREFIX) :] for path in Path(folder).glob(f"{FOLD_PREFIX}*/{checkpoint_name}")]
    return sorted(int(fold) for fold in folds if fold.isdecimal())


def _require_model_folder(folder: Path) -> None:
    if not folder.is_dir():
        others = sorted(path.name for path in folder.parent.glob("*__*__*") if path.is_dir())
        there = f"{folder.parent} has {', '.join(others)}" if others else f"{folder.parent} has no trained model"
        raise UsageError(
            f"There is no model folder {folder}; {there}. Name another model (-tr, -p, -c), or train it first"
        )
    for name in ("dataset.json", "plans.json"):
        if not (folder / name).is_file():
            raise DataError(f"{folder} is not a complete model folder: it has no {name}")


def _checkpoint_path(folder: Path, fold: int | str, checkpoint_name: str) -> Path:
    if fold != "all" and not str(fold).isdecimal():
        raise UsageError(f"The fold {fold!r} is neither a number nor all; {_describe_folds(folder)}")
    check_name(checkpoint_name, "a checkpoint", UsageError)
    path = folder / f"{FOLD_PREFIX}{fold if fold == 'all' else int(fold)}" / checkpoint_name
    if not path.is_file():
        raise UsageError(f"There is no {path}; {_describe_folds(folder)}; choose with -f and -chk")
    return path


def _describe_folds(folder: Path) -> str:
    """Format `the model has fold 0 (checkpoint_final.pth), fold all (checkpoint_best.pth)`."""
    folds = [
        f"fold {path.name[len(FOLD_PREFIX) :]} ({', '.join(sorted(p.name for p in path.glob('*.pth'))) or 'empty'})"
        for path in sorted(folder.glob(f"{FOLD_PREFIX}*"))
    ]
    return f"the model has {', '.join(folds)}" if folds else "the model has no folds"
