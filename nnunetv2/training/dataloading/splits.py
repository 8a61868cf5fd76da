"""Training and validation cases of a fold."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.crossval_split import NUM_FOLDS, Split, SplitRule
from nnunetv2.utilities.splits_file import SPLITS_FILE, load_or_create_splits, read_or_generate_splits

__all__ = [
    "NUM_FOLDS",
    "SPLITS_FILE",
    "Split",
    "SplitRule",
    "load_or_create_splits",
    "read_or_generate_splits",
    "select_fold",
]

_log = logging.getLogger(__name__)


def select_fold(
    splits: Sequence[Split], fold: int | str, identifiers: Sequence[str], *, allow_leak: bool = False
) -> tuple[list[str], list[str]]:
    """Selects training and validation cases of a fold; `all` trains and validates on every case.

    Args:
        splits: result of `load_or_create_splits`; ignored for fold `all`.
        fold: number of the split, or "all".
        identifiers: the available cases.
        allow_leak: only warn about validation on training cases.

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
    _refuse(fold, "cases that are not preprocessed", {*train, *val} - set(identifiers), "correct the file")
    leaked = set(train) & set(val)
    if allow_leak and leaked:
        _log.warning(
            "--allow_leak: fold %s validates on %d of its training cases; scores are too high", fold, len(leaked)
        )
    else:
        remedy = "correct the file, or allow it with --allow_leak"
        _refuse(fold, "cases both for training and for validation", leaked, remedy)
    return train, val


def _refuse(fold: int, what: str, cases: set[str], remedy: str) -> None:
    if cases:
        shown = ", ".join(sorted(cases)[:5])
        raise DataError(f"fold {fold} of {SPLITS_FILE} names {what} ({len(cases)}: {shown}); {remedy}")
