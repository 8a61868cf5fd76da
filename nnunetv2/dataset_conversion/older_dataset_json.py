"""The dataset.json of the Medical Segmentation Decathlon and of nnU-Net v1, and what became of its entries."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import DataError
from nnunetv2.utilities.label_handling.label_declaration import check_declaration

logger = logging.getLogger(__name__)

FILE_ENDING = ".nii.gz"  # of all datasets in the older layouts


def translate_dataset_json(path: Path, num_training_cases: int, dropped: Collection[str]) -> dict[str, Any]:
    """Reads an older dataset.json and returns it as nnU-Net v2 writes it.

    `modality` becomes `channel_names`, labels map names to integers, and the file ending is added. Other entries stay.

    Args:
        path: the older file.
        num_training_cases: number of cases that are there.
        dropped: names of entries to leave out, where they occur.

    Raises:
        DataError: an entry is missing or wrong, or `numTraining` is not the number of cases.
    """
    older = read_json(path)
    channel_names = older.get("modality", older.get("channel_names"))
    if not channel_names or "labels" not in older:
        raise DataError(f'{path} must have the entries "modality" and "labels"; it has {", ".join(older) or "none"}')
    announced = older.get("numTraining", num_training_cases)
    if announced != num_training_cases:
        raise DataError(
            f"{path} announces {announced} training cases (numTraining), there are {num_training_cases}; get the "
            f"missing files, or correct the number"
        )
    content = {key: value for key, value in older.items() if key != "modality" and key not in dropped}
    content["labels"] = _labels_by_name(older["labels"], path)
    content |= {"numTraining": num_training_cases, "file_ending": FILE_ENDING, "channel_names": channel_names}
    return content


def _labels_by_name(older: Mapping[str, str], path: Path) -> dict[str, int]:
    """`{"0": "background", "1": "liver"}` the other way round."""
    labels: dict[str, int] = {}
    for number, name in older.items():
        if not str(number).isdecimal() or not isinstance(name, str):
            raise DataError(
                f'{path}: "labels" has the entry {number!r}: {name!r}; this layout has integers first, like '
                f'{{"0": "background", "1": "liver"}}'
            )
        if int(number) == 0 and name != "background":
            logger.warning('%s: label 0 is named %r; nnU-Net needs the name "background", so it gets that', path, name)
            name = "background"
        if name in labels:
            raise DataError(f'{path}: two of the "labels" are named {name!r}; give each its own name')
        labels[name] = int(number)
    check_declaration(labels, None)
    return labels
