"""The file `splits_final.json` of a preprocessed dataset: read, checked against leaks, or created."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import create_json, read_json, write_json
from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.case_identifiers import check_case_identifier
from nnunetv2.utilities.crossval_split import (
    NUM_FOLDS,
    SEED,
    Split,
    SplitRule,
    generate_crossval_split,
    groups_of,
    separated_groups,
)
from nnunetv2.utilities.message_parts import command_text
from nnunetv2.utilities.patient_names import visits_of_patients

_log = logging.getLogger(__name__)

SPLITS_FILE = "splits_final.json"
DUPLICATES_FILE = "duplicate_cases.json"
"""Written with the fingerprint if cases have equal images: a list of lists of cases."""
_DEFAULT = SplitRule()


def load_or_create_splits(
    preprocessed_folder: str | os.PathLike, identifiers: Sequence[str], rule: SplitRule = _DEFAULT
) -> list[Split]:
    """Reads `splits_final.json` of a preprocessed dataset, or creates it: by default five seeded folds.

    Without a pattern and duplicates, the folds are upstream's. Of several processes that create the file at once, one
    writes it and the others read it.

    Args:
        preprocessed_folder: the dataset's folder, which holds the plans.
        identifiers: all cases of the dataset.
        rule: number of folds, and which cases must stay together; an existing file must comply with it.

    Returns:
        One dict per fold, with the identifiers of its `train` and `val` cases.

    Raises:
        DataError: the file is not a list of such dicts, there are too few cases, or cases that must stay together
            (by the pattern, or with equal images) are in both halves of a fold.
        UsageError: the file has another number of folds, or the pattern matches no case.
    """
    path = Path(preprocessed_folder) / SPLITS_FILE
    if not path.is_file():
        splits = _generated(path, identifiers, rule)
        if create_json(splits, path):
            _log.info("Wrote new splits for a %d-fold cross-validation to %s", len(splits), path)
    splits = read_or_generate_splits(preprocessed_folder, identifiers, rule)
    _report_use(len(splits), path)
    return splits


def read_or_generate_splits(
    preprocessed_folder: str | os.PathLike, identifiers: Sequence[str], rule: SplitRule = _DEFAULT
) -> list[Split]:
    """Returns what `load_or_create_splits` would return, or raises its errors; writes nothing."""
    path = Path(preprocessed_folder) / SPLITS_FILE
    splits = read_splits(path) if path.is_file() else _generated(path, identifiers, rule)
    if rule.num_folds not in (None, len(splits)):
        raise UsageError(
            f"--num_folds is {rule.num_folds}, but {path} has {len(splits)} folds; leave it out, or delete the file if "
            f"nothing has been trained with it"
        )
    _check_groups(path, splits, sorted(map(str, identifiers)), rule)
    return splits


def _generated(path: Path, identifiers: Sequence[str], rule: SplitRule) -> list[Split]:
    cases = sorted(map(str, identifiers))
    groups = groups_of(cases, rule.group_by, _read_duplicates(path.with_name(DUPLICATES_FILE)))
    return generate_crossval_split(cases, SEED, rule.num_folds or NUM_FOLDS, groups)


def _check_groups(path: Path, splits: list[Split], cases: list[str], rule: SplitRule) -> None:
    if duplicates := _read_duplicates(path.with_name(DUPLICATES_FILE)):
        apart = separated_groups(splits, groups_of(cases, None, duplicates))
        _refuse_leak(path, "cases with equal images", apart, "remove one of each, or delete the file", rule)
    if rule.group_by is not None:
        apart = separated_groups(splits, groups_of(cases, rule.group_by))
        remedy = "delete the file if nothing has been trained with it"
        _refuse_leak(path, f"cases of one group (--group_by {rule.group_by!r})", apart, remedy, rule)
    elif found := visits_of_patients(cases):
        pattern, groups = found
        if apart := separated_groups(splits, groups):
            _warn_of_patients(path, len(apart), apart[0], pattern)


def _refuse_leak(path: Path, what: str, apart: list[tuple[int, str, str]], remedy: str, rule: SplitRule) -> None:
    if not apart:
        return
    fold, training, validation = apart[0]
    message = (
        f"{path} separates {what}: fold {fold} trains on {training} and validates on {validation}"
        f"{f' ({len(apart)} groups in all)' if len(apart) > 1 else ''}"
    )
    if not rule.allow_leak:
        raise DataError(f"{message}; scores would be too high: {remedy}, or allow it with --allow_leak")
    _warn_once(f"--allow_leak: {message}; scores are too high")


def _warn_of_patients(path: Path, number: int, example: tuple[int, str, str], pattern: str) -> None:
    fold, training, validation = example
    _warn_once(
        f"Names look like several cases of one patient, which {path} separates ({number} patients; fold {fold} trains "
        f"on {training} and validates on {validation}); scores would be too high. If so, delete the file before "
        f"training and split by patient: {command_text(['--group_by', pattern])}"
    )


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)


@functools.cache
def _report_use(num_splits: int, path: Path) -> None:
    """Logs only once: a training loads its splits again for validation."""
    _log.info("Using the %d splits of %s", num_splits, path)


def write_duplicates(duplicates: Sequence[Sequence[str]], preprocessed_folder: Path) -> None:
    """Writes the groups of cases with equal images, from which `load_or_create_splits` knows them."""
    path = preprocessed_folder / DUPLICATES_FILE
    if duplicates:
        write_json(duplicates, path)
    else:
        path.unlink(missing_ok=True)


def _read_duplicates(path: Path) -> list[list[str]]:
    duplicates = read_json(path) if path.is_file() else []
    if not isinstance(duplicates, list) or not all(map(_is_list_of_cases, duplicates)):
        raise DataError(f"{path} must be a list of lists of cases; run nnUNetv2_extract_fingerprint --clean again")
    return duplicates


def read_splits(path: Path) -> list[Split]:
    """Reads and checks a file of splits. Raises `DataError` if it has another form."""
    try:
        splits = read_json(path)
    except ValueError as err:
        raise DataError(f"{err}: correct the file, or delete it to get the default splits") from err
    if not isinstance(splits, list) or not splits or not all(map(_is_split, splits)):
        raise DataError(f'{path} must be a list with a {{"train": [cases], "val": [cases]}} for each fold')
    for split in splits:
        for case in (*split["train"], *split["val"]):
            check_case_identifier(case)
    return splits


def _is_split(entry: Any) -> bool:
    return isinstance(entry, dict) and all(_is_list_of_cases(entry.get(part)) for part in ("train", "val"))


def _is_list_of_cases(entry: Any) -> bool:
    return isinstance(entry, list) and all(isinstance(case, str) for case in entry)
