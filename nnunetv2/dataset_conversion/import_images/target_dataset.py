"""The raw dataset that an import creates, replaces or extends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.dataset_conversion.import_images.case_record import TABLE, CaseRecord, read_records
from nnunetv2.dataset_conversion.import_images.settings import Settings
from nnunetv2.errors import DataError, UsageError
from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.splits_file import SPLITS_FILE

DATASET_JSON = "dataset.json"
IMPORTED = "imported"
"""Entry of dataset.json that keeps how pictures were imported."""


@dataclass(frozen=True)
class Existing:
    """A dataset that is extended."""

    folder: Path
    description: dict[str, Any]
    records: tuple[CaseRecord, ...]


def target_folder(settings: Settings) -> Path:
    """Returns the folder of the dataset in `nnUNet_raw`.

    Raises:
        UsageError: the number belongs to another dataset, or the dataset exists and neither `--overwrite` nor `--add`
            is given, or `--add` is and it does not exist.
    """
    number, name, _ = settings.required()
    full_name = check_name(f"Dataset{number:03d}_{name}", "a dataset (-n)", UsageError)
    target = Path(nnUNet_raw) / full_name
    there = find_candidate_datasets(number)
    others = [each for each in there if each != full_name]
    if others:
        raise UsageError(
            f"The number {number} belongs to {', '.join(others)} (look in nnUNet_raw, nnUNet_preprocessed and "
            f"nnUNet_results); choose another one with -d, or remove that dataset"
        )
    if settings.add and not target.is_dir():
        raise UsageError(f"--add extends a dataset, and there is no {target}; leave it out to create it")
    if there and not (settings.add or settings.overwrite):
        raise UsageError(
            f"{full_name} exists already; choose another number with -d, replace it with --overwrite, or add cases to "
            f"it with --add"
        )
    return target


def read_existing(folder: Path) -> Existing:
    """Reads a dataset that an import made.

    Raises:
        DataError: it has no `import.csv`, or its dataset.json is invalid.
    """
    if not (folder / DATASET_JSON).is_file():
        raise DataError(f"There is no {DATASET_JSON} in {folder}; replace this folder with --overwrite")
    return Existing(folder, read_dataset_json(folder / DATASET_JSON), tuple(read_records(folder / TABLE)))


def require_same_form(existing: Existing, new: dict[str, Any]) -> None:
    """Raises `DataError` if the labels, channels or depth of new cases differ from those of a dataset."""
    old = existing.description
    for key in ("labels", "regions_class_order", "channel_names"):
        if old.get(key) != new.get(key):
            raise DataError(
                f"--add: the new cases have {key} {new.get(key)}, and {existing.folder.name} has {old.get(key)}; they "
                f"must be equal"
            )
    bits = old.get(IMPORTED, {}).get("bits")
    if bits != new[IMPORTED]["bits"]:
        raise DataError(
            f"--add: the new pictures have {new[IMPORTED]['bits']} bits per channel, and those of "
            f"{existing.folder.name} have {bits}"
        )


def copy_cases(existing: Existing, folder: Path) -> None:
    """Puts the files of a dataset into a folder, as links where the file system has them; not what is written anew."""
    shutil.copytree(
        existing.folder,
        folder,
        dirs_exist_ok=True,
        copy_function=_link,
        ignore=lambda where, _: [DATASET_JSON, TABLE, SPLITS_FILE] if Path(where) == existing.folder else [],
    )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def names_of(records: Sequence[CaseRecord], *, test: bool) -> list[str]:
    return [record.case for record in records if (record.part == "test") == test]
