"""Split the training cases for cross-validation, deterministically; cases of one group stay in one half."""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.message_parts import counted

NUM_FOLDS = 5
SEED = 12345

Split = dict[str, list[str]]
Groups = dict[str, str]
"""Name of the group of each case."""


@dataclass(frozen=True)
class SplitRule:
    """How the cases of a dataset are split; by default as nnU-Net does.

    Raises:
        UsageError: `num_folds` is below 2, or `group_by` is no regular expression.
    """

    num_folds: int | None = None
    """None: as many as an existing file of splits has, else five"""
    group_by: str | None = None
    """regular expression; cases for which its first group (without groups, its match) is equal stay together"""
    allow_leak: bool = False
    """only warn if cases that belong together are in both halves of a fold"""

    def __post_init__(self) -> None:
        if self.num_folds is not None and self.num_folds < 2:
            raise UsageError(f"--num_folds is {self.num_folds}; a cross-validation has at least 2 folds")
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except re.error as err:
                raise UsageError(f"--group_by is {self.group_by!r}, which is no regular expression: {err}") from err


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `split_rule_of` reads."""
    parser.add_argument(
        "--num_folds", type=int, default=None, metavar="N", help="number of folds of new splits (default: 5)"
    )
    parser.add_argument(
        "--group_by",
        default=None,
        metavar="REGEX",
        help="keep cases together, such as the visits of a patient: those for which the first group of this regular "
        "expression matches the same part of the name; for example '^(patient_[0-9]+)'",
    )
    parser.add_argument(
        "--allow_leak",
        action="store_true",
        help="only warn if a fold trains and validates on the same or equal cases, or on cases of one group",
    )


def split_rule_of(args: argparse.Namespace) -> SplitRule:
    return SplitRule(args.num_folds, args.group_by, args.allow_leak)


def generate_crossval_split(
    train_identifiers: Sequence[str],
    seed: int = SEED,
    n_splits: int = NUM_FOLDS,
    groups: Mapping[str, str] | None = None,
) -> list[Split]:
    """Create one `{"train": [...], "val": [...]}` per fold; each case is in exactly one `val`.

    Without groups of several cases the folds are upstream's. With groups, these are shuffled by the seed, sorted by
    size, largest first, and each is assigned to the fold that has the fewest cases so far, the first of equals.

    Args:
        train_identifiers: the cases; the split depends on their order, and nnU-Net passes them sorted.
        groups: group of each case, see `groups_of`; the cases of a group stay in one half of each fold.

    Raises:
        DataError: there are fewer cases, or groups, than folds.
    """
    cases = [str(case) for case in train_identifiers]
    members = defaultdict(list)
    for case in cases:
        members[(groups or {}).get(case, case)].append(case)
    if len(members) < n_splits:
        parts = counted(len(cases), "training case")
        if len(members) < len(cases):
            parts = f"{counted(len(members), 'group')} ({parts})"
        choice = f"choose fewer folds (--num_folds {len(members)}), " if len(members) > 1 else ""
        raise DataError(
            f"A dataset of {parts} cannot be split into {n_splits} folds; {choice}"
            f"write a splits_final.json with your own splits into its preprocessed folder, or train on all cases "
            f"(fold all)"
        )
    validation = _folds(cases, seed, n_splits) if len(members) == len(cases) else _grouped(members, seed, n_splits)
    return [
        {"train": [case for case in cases if case not in chosen], "val": [case for case in cases if case in chosen]}
        for chosen in validation
    ]


def _folds(cases: list[str], seed: int, num_folds: int) -> list[set[str]]:
    """Returns the validation cases of each fold: those of scikit-learn's shuffled KFold, which is slow to import."""
    import numpy as np

    order = np.arange(len(cases))
    np.random.RandomState(seed).shuffle(order)
    return [{cases[i] for i in fold} for fold in np.array_split(order, num_folds)]


def _grouped(members: Mapping[str, list[str]], seed: int, num_folds: int) -> list[set[str]]:
    import numpy as np

    names = list(members)
    shuffled = [names[i] for i in np.random.RandomState(seed).permutation(len(names))]
    folds: list[set[str]] = [set() for _ in range(num_folds)]
    for name in sorted(shuffled, key=lambda each: -len(members[each])):
        min(folds, key=len).update(members[name])
    return folds


def groups_of(identifiers: Sequence[str], pattern: str | None, together: Iterable[Sequence[str]] = ()) -> Groups:
    """Name the group of each case.

    Args:
        pattern: see `SplitRule.group_by`. A case that it does not match is a group of its own, or joins the group that
            has the case's name.
        together: cases that belong together in addition, such as duplicates.

    Raises:
        UsageError: the pattern matches no case.
    """
    groups = {case: case for case in identifiers}
    if pattern is not None:
        found = {case: match for case in identifiers if (match := re.search(pattern, case))}
        if not found:
            raise UsageError(f"--group_by {pattern!r} matches none of the cases, such as {identifiers[0]}")
        groups |= {case: match[1 if match.re.groups else 0] or case for case, match in found.items()}
    for cases in together:
        joined = {groups[case] for case in cases if case in groups}
        name = min(joined, default=None)
        groups |= {case: name for case, group in groups.items() if group in joined}
    return groups


def separated_groups(splits: Sequence[Split], groups: Mapping[str, str]) -> list[tuple[int, str, str]]:
    """List, for each group in both halves of a fold, the first such fold, a training and a validation case."""
    found: dict[str, tuple[int, str, str]] = {}
    for fold, split in enumerate(splits):
        training = {groups[case]: case for case in reversed(split["train"]) if case in groups}
        for case in split["val"]:
            group = groups.get(case)
            if group in training and training[group] != case:
                found.setdefault(group, (fold, training[group], case))
    return list(found.values())
