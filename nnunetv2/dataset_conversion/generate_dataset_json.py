"""Write the dataset.json of a dataset, for use in conversion scripts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import write_json
from nnunetv2.errors import UsageError
from nnunetv2.utilities.dataset_json import check_dataset_json
from nnunetv2.utilities.json_export import json_ready
from nnunetv2.utilities.label_handling.label_declaration import Entry, check_declaration, members

NOT_STATED = "not stated"


def generate_dataset_json(  # noqa: PLR0913 - upstream's parameters
    output_folder: str | os.PathLike,
    channel_names: Mapping[int | str, str],
    labels: Mapping[str, Entry],
    num_training_cases: int,
    file_ending: str,
    citation: Sequence[str] | str | None = None,
    regions_class_order: Sequence[int] | None = None,
    dataset_name: str | None = None,
    reference: str | None = None,
    release: str | None = None,
    description: str | None = None,
    overwrite_image_reader_writer: str | None = None,
    license: str = NOT_STATED,
    converted_by: str = NOT_STATED,
    **kwargs: Any,
) -> None:
    """Write `dataset.json` into the folder of a raw dataset.

    nnU-Net itself uses the channels, labels, number of cases, file ending, region order and reader; the other entries
    document the dataset. The arguments are not modified.

    Args:
        output_folder: existing folder of the dataset.
        channel_names: name of each channel, `{0: "T1", 1: "CT"}`. The name selects the normalisation: "CT" clips and
            scales by statistics of the dataset, "rgb_to_0_1" divides by 255, "noNorm" changes nothing, and most others
            normalise each image to zero mean and unit variance.
        labels: integer of each class, `{"background": 0, "liver": 1, "ignore": 2}`, or for each region the integers
            that it contains, `{"background": 0, "whole tumour": (1, 2), "core": 2}`. Without gaps.
        num_training_cases: number of cases in imagesTr, to detect missing ones.
        file_ending: of images and labels, including the dot: ".nii.gz".
        regions_class_order: required with regions: the integer that each region writes, in the order of `labels`.
        overwrite_image_reader_writer: class that reads the images, instead of the one that nnU-Net would choose.
        kwargs: additional entries; they override those of the same name.

    Raises:
        UsageError: the folder does not exist, or `file_ending` has no dot.
        DataError: a field is invalid, or the order loses regions; nothing is written.
    """
    if not Path(output_folder).is_dir():
        raise UsageError(f"There is no folder {os.fspath(output_folder)}; make it before writing its dataset.json")
    if not file_ending.startswith("."):
        raise UsageError(f'file_ending is {file_ending!r}; it must begin with a dot, like ".nii.gz" or ".png"')
    check_declaration(labels, regions_class_order)
    content = {
        "channel_names": {str(index): name for index, name in channel_names.items()},
        "labels": {name: _plain_label(entry) for name, entry in labels.items()},
        "numTraining": num_training_cases,
        "file_ending": file_ending,
        "licence": license,
        "converted_by": converted_by,
    }
    optional = {
        "name": dataset_name,
        "reference": reference,
        "release": release,
        "citation": citation,
        "description": description,
        "overwrite_image_reader_writer": overwrite_image_reader_writer,
        "regions_class_order": regions_class_order,
    }
    content |= {key: value for key, value in optional.items() if value is not None} | kwargs
    write_json(check_dataset_json(json_ready(content)), Path(output_folder) / "dataset.json")


def _plain_label(entry: Entry) -> int | tuple[int, ...]:
    return members(entry) if isinstance(entry, (list, tuple)) else int(entry)
