"""Resolve dataset numbers: `4` refers to the folder `Dataset004_Hippocampus` in any of the three root folders."""

from __future__ import annotations

import re
from pathlib import Path

from nnunetv2.errors import UsageError
from nnunetv2.paths import EnvironmentPath, nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunetv2.utilities.file_names import check_name

_DATASET = re.compile(r"Dataset(\d{3,})(?!\d)")


def _existing_roots() -> list[EnvironmentPath]:
    return [root for root in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results) if root.is_set() and Path(root).is_dir()]


def _dataset_folders() -> dict[str, int]:
    """Names and numbers of all datasets with a folder in one of the roots."""
    found: dict[str, int] = {}
    for root in _existing_roots():
        for entry in Path(root).iterdir():
            match = _DATASET.match(entry.name)
            if match and entry.is_dir():
                found[entry.name] = int(match[1])
    return dict(sorted(found.items()))


def find_candidate_datasets(dataset_id: int) -> list[str]:
    """Sorted names of all datasets with this number."""
    return [name for name, number in _dataset_folders().items() if number == dataset_id]


def convert_id_to_dataset_name(dataset_id: int) -> str:
    """Find the folder name of a dataset.

    Raises:
        UsageError: no dataset has this number, or several names share it.
    """
    candidates = find_candidate_datasets(dataset_id)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise UsageError(
            f"Dataset id {dataset_id} stands for {' and '.join(candidates)} (searched: {_searched()}); "
            f"rename one of them, or give the whole name"
        )
    known = ", ".join(_dataset_folders()) or "none"
    raise UsageError(f"There is no dataset with id {dataset_id}. Searched: {_searched()}. Datasets there: {known}")


def _searched() -> str:
    roots = {root.variable: root for root in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results)}
    existing = {root.variable for root in _existing_roots()}
    described = []
    for variable, root in roots.items():
        if not root.is_set():
            described.append(f"{variable} (not set)")
        else:
            described.append(f"{variable}={root}" + ("" if variable in existing else " (no such folder)"))
    return ", ".join(described)


def convert_dataset_name_to_id(dataset_name: str) -> int:
    """Parse the number in a dataset's folder name: 4 for `Dataset004_Hippocampus`."""
    match = _DATASET.match(dataset_name)
    if not match:
        raise UsageError(f"{dataset_name!r} is not a dataset name; it must look like Dataset004_Hippocampus")
    return int(match[1])


def maybe_convert_to_dataset_name(dataset_name_or_id: int | str) -> str:
    """Resolve a dataset's folder name from its number; a name is returned unchanged.

    Raises:
        UsageError: the text is neither, or no dataset has the number.
    """
    if isinstance(dataset_name_or_id, str) and dataset_name_or_id.startswith("Dataset"):
        return check_name(dataset_name_or_id, "a dataset", UsageError)
    try:
        dataset_id = int(dataset_name_or_id)
    except ValueError as err:
        raise UsageError(
            f"{dataset_name_or_id!r} is not a dataset; "
            f"give its number, like 4, or its name, like Dataset004_Hippocampus"
        ) from err
    return convert_id_to_dataset_name(dataset_id)
