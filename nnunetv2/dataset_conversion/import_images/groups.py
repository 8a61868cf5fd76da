"""Which cases share a fold: the patients of `--group`, and the parts that an export brings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.dataset_conversion.import_images.case_record import CaseRecord
from nnunetv2.dataset_conversion.import_images.layouts.layout import TEST, VALIDATION, FoundCase
from nnunetv2.dataset_conversion.import_images.suspicions import same_pictures
from nnunetv2.dataset_conversion.import_images.text_files import read_table
from nnunetv2.errors import DataError, UsageError
from nnunetv2.utilities.crossval_split import NUM_FOLDS, SEED, Split, generate_crossval_split, groups_of

_CASE_COLUMNS = ("case", "image")


def groups_of_cases(given: str | None, cases: Sequence[FoundCase], names: Sequence[str]) -> list[str]:
    """Returns the group of each case, empty for none: of `--group`, else of the table that was imported.

    Args:
        given: a regular expression whose first group (without groups, its match) names the group of a case, or the path
            of a table with the columns `case` (or `image`) and `group`.
        names: of the cases.

    Raises:
        UsageError: the expression is invalid or matches no case, or the table does not exist.
        DataError: the table does not name a case.
    """
    if given is None:
        return [case.group or "" for case in cases]
    if given.lower().endswith(".csv"):
        return _from_table(Path(given), cases, names)
    try:
        pattern = re.compile(given)
    except re.error as err:
        raise UsageError(f"--group is {given!r}, which is no regular expression: {err}") from err
    found = []
    for case, name in zip(cases, names, strict=True):
        match = pattern.search(name) or pattern.search(case.image.stem)
        found.append((match[1 if pattern.groups else 0] or "") if match else "")
    if not any(found):
        raise UsageError(f"--group {given!r} matches none of the cases, such as {names[0]}")
    return found


def _from_table(path: Path, cases: Sequence[FoundCase], names: Sequence[str]) -> list[str]:
    if not path.is_file():
        raise UsageError(f"--group names the table {path}, which does not exist")
    columns, rows = read_table(path)
    key = next((column for column in _CASE_COLUMNS if column in columns), None)
    if key is None or "group" not in columns:
        raise UsageError(f"{path} has the columns {', '.join(columns) or 'none'}; it needs case and group")
    table = {row[key]: row["group"] for row in rows}
    found = []
    for case, name in zip(cases, names, strict=True):
        known = [each for each in (name, case.name, case.image.name, case.image.stem) if each in table]
        if not known:
            raise DataError(f"{path} has no group for {case.image.name}; it is named in the column {key}")
        found.append(table[known[0]])
    return found


def splits_of(records: Sequence[CaseRecord], num_folds: int | None, *, by_group: bool) -> list[Split] | None:
    """Returns the folds of the training cases; None for nnU-Net's own.

    With groups these are those of `--group_by` of the planner, and equal pictures count as one group. Without, the
    parts of an export become a single fold.

    Raises:
        DataError: there are fewer groups than folds.
    """
    training = sorted((record for record in records if record.part != TEST), key=lambda record: record.case)
    cases = [record.case for record in training]
    if by_group or num_folds is not None:
        together: dict[str, list[str]] = {}
        for record in training:
            if record.group:
                together.setdefault(record.group, []).append(record.case)
        same = [[record.case for record in each] for each in same_pictures(training)]
        groups = groups_of(cases, None, [*together.values(), *same])
        number = num_folds or NUM_FOLDS
        if len(set(groups.values())) < number:
            raise DataError(
                f"{len(cases)} training cases in {len(set(groups.values()))} groups cannot be split into {number} "
                f"folds; choose fewer with --folds"
            )
        return generate_crossval_split(cases, SEED, number, groups)
    validation = [record.case for record in training if record.part == VALIDATION]
    if not validation:
        return None
    return [{"train": [case for case in cases if case not in validation], "val": validation}]
