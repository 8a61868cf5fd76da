"""Split the training cases for cross-validation, deterministically."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.errors import DataError
from nnunetv2.utilities.message_parts import counted


def generate_crossval_split(
    train_identifiers: Sequence[str], seed: int = 12345, n_splits: int = 5
) -> list[dict[str, list[str]]]:
    """Create one `{"train": [...], "val": [...]}` per fold; each case is in exactly one `val`.

    Args:
        train_identifiers: the cases; the split depends on their order, and nnU-Net passes them sorted.

    Raises:
        DataError: there are fewer cases than folds.
    """
    if len(train_identifiers) < n_splits:
        raise DataError(
            f"A dataset of {counted(len(train_identifiers), 'training case')} cannot be split into {n_splits} folds; "
            f"write a splits_final.json with your own splits into its preprocessed folder, or train on all cases "
            f"(fold all)"
        )
    from sklearn.model_selection import KFold

    cases = [str(case) for case in train_identifiers]
    folds = KFold(n_splits=n_splits, shuffle=True, random_state=seed).split(cases)
    return [{"train": [cases[i] for i in train], "val": [cases[i] for i in val]} for train, val in folds]
