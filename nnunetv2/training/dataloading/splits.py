"""Cross-validation splits of a dataset, stored in `splits_final.json`."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json, write_json
from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.case_identifiers import check_case_identifier
from nnunetv2.utilities.crossval_split import generate_crossval_split

_log = logging.getLogger(__name__)

SPLITS_FILE = "splits_final.json"
NUM_FOLDS = 5
_SEED = 12345

Split = dict[str, list[str]]


def load_or_create_splits(preprocessed_folder: str | os.PathLike, identifiers: Sequence[str]) -> list[Split]:
    """Reads `splits_final.json` of a preprocessed dataset, or creates it: five seeded folds over the sorted cases.

    Args:
        preprocessed_folder: the dataset's folder, which holds the plans.
        identifiers: all cases of the dataset.

    Returns:
        One dict per fold, with the identifiers of its `train` and `val` cases.

    Raises:
        DataError: the file is not a list of such dicts, or five folds need more cases.
    """
    path = Path(preprocessed_folder) / SPLITS_FILE
    is_given, splits = path.is_file(), read_or_generate_splits(preprocessed_folder, identifiers)
    if is_given:
        _report_use(len(splits), path)
        return splits
    write_json(splits, path)
    _log.info("Wrote new splits for a %d-fold cross-validation to %s", NUM_FOLDS, path)
    return splits


def read_or_generate_splits(preprocessed_folder: str | os.PathLike, identifiers: Sequence[str]) -> list[Split]:
    """Returns what `load_or_create_splits` would return; writes nothing."""
    path = Path(preprocessed_folder) / SPLITS_FILE
    if path.is_file():
        return read_splits(path)
    return generate_crossval_split(sorted(map(str, identifiers)), seed=_SEED, n_splits=NUM_FOLDS)


@functools.cache
def _report_use(num_splits: int, path: Path) -> None:
    """Logs only once: a training loads its splits again for validation."""
    _log.info("Using the %d splits of %s", num_splits, path)


def select_fold(splits: Sequence[Split], fold: int | str, identifiers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Selects training and validation cases of a fold; `all` trains and validates on every case.

    Args:
        splits: result of `load_or_create_splits`; ignored for fold `all`.
        fold: number of the split, or "all".
        identifiers: the available cases.

    Raises:
        UsageError: the fold does not exist.
        DataError: the fold lists a missing case, has no cases, or validates on training cases.
    """
    if fold == "all":
        return list(identifiers), list(identifiers)
    if fold not in range(len(splits)):
        folds = ", ".join(map(str, range(len(splits))))
        raise UsageError(
            f"there is no fold {fold}: the folds are {folds} and all; to train on other cases, "
            f"add a split to {SPLITS_FILE} of the preprocessed dataset"
        )
    train, val = splits[fold]["train"], splits[fold]["val"]
    if not train or not val:
        raise DataError(f"fold {fold} of {SPLITS_FILE} has {len(train)} training and {len(val)} validation cases")
    _refuse(fold, "cases that are not preprocessed", {*train, *val} - set(identifiers))
    _refuse(fold, "cases both for training and for validation", set(train) & set(val))
    return train, val


def _refuse(fold: int, what: str, cases: set[str]) -> None:
    if cases:
        shown = ", ".join(sorted(cases)[:5])
        raise DataError(f"fold {fold} of {SPLITS_FILE} names {what} ({len(cases)}: {shown}); correct the file")


def read_splits(path: Path) -> list[Split]:
    """Reads splits from a file. Raises `DataError` if it is not a list of splits with names of cases."""
    try:
        splits = read_json(path)
    except DataError as err:
        raise DataError(f"{err}: correct the file, or delete it to get the default splits") from err
    if not isinstance(splits, list) or not splits or not all(map(_is_split, splits)):
        raise DataError(f'{path} must be a list with a {{"train": [cases], "val": [cases]}} for each fold')
    for split in splits:
        for case in (*split["train"], *split["val"]):
            check_case_identifier(case)
    return splits


def _is_split(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(part), list) and all(isinstance(case, str) for case in entry[part])
        for part in ("train", "val")
    )
