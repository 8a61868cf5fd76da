"""Read dataset.json: every field is checked for type, range and consistency before anything is computed from it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from dinov3.utils.json_files import read_json
from nnunetv2.errors import DataError
from nnunetv2.utilities.case_identifiers import check_case_identifier
from nnunetv2.utilities.file_names import check_file_ending, shortened
from nnunetv2.utilities.label_handling.label_declaration import (
    Entry,
    check_declaration,
    has_any_region,
    is_integer,
    members,
    only_background,
    reason_of_loss,
)

logger = logging.getLogger(__name__)

LARGEST_FILE = 2**25  # bytes; with 100,000 listed cases it has 20 MB
_CHANNELS_FORM = 'it maps the number of each channel to its name, like {"0": "CT", "1": "PET"}'


def read_dataset_json(path: str | os.PathLike, *, trained: bool = False) -> dict[str, Any]:
    """Read and check a dataset.json; see `check_dataset_json`."""
    content = read_json(path, largest=LARGEST_FILE, unique_keys=True)
    return check_dataset_json(content, os.fspath(path), trained=trained)


def check_dataset_json(content: Any, source: str = "dataset.json", *, trained: bool = False) -> dict[str, Any]:
    """Check the fields that are used; others, such as a description, may have any content.

    Args:
        source: path of the file, for messages.
        trained: the file belongs to a trained model or to predictions. It needs no `numTraining`, channels are only
            counted, and an order that loses regions is a warning: the labels of the model cannot be changed any more.

    Returns:
        The content.

    Raises:
        DataError: names the field, its value and the right form.
    """
    if not isinstance(content, dict):
        raise DataError(
            f'{source} holds {shortened(content)}; it must be an object with "channel_names", "labels", "numTraining" '
            f'and "file_ending"'
        )
    channel_names(content, source, strict=not trained)
    _check_labels(content, source, trained=trained)
    file_ending(content, source)
    _check_reader(content, source)
    if not trained:
        _check_number_of_cases(content, source)
        if "dataset" in content:
            check_listed_cases(content["dataset"], source)
    return content


def channel_names(content: Mapping[str, Any], source: str = "dataset.json", *, strict: bool = False) -> dict[str, str]:
    """Return the entry `channel_names`, or `modality`, as the entry was called in nnU-Net v1.

    Args:
        strict: also check that channels are numbered 0, 1, 2, ... in this order, and named by text.

    Raises:
        DataError: the entry is missing or has another form, or both are there and differ in number.
    """
    present = [key for key in ("channel_names", "modality") if key in content]
    if not present:
        raise DataError(f'{source} has no key "channel_names"; {_CHANNELS_FORM}')
    for key in present:
        if not isinstance(content[key], dict) or not content[key]:
            raise DataError(f'{source}: "{key}" is {shortened(content[key])}; {_right_channels(content[key])}')
        if strict:
            _check_channels(content[key], key, source)
    if len({len(content[key]) for key in present}) > 1:
        raise DataError(
            f'{source} has {len(content["channel_names"])} "channel_names" and {len(content["modality"])} entries in '
            f'"modality", its older name; remove "modality"'
        )
    return content[present[0]]


def _check_channels(channels: dict[str, Any], key: str, source: str) -> None:
    numbers = [int(number) if _is_number(number) else None for number in channels]
    if numbers != list(range(len(channels))) or not all(isinstance(name, str) for name in channels.values()):
        raise DataError(f'{source}: "{key}" is {shortened(channels)}; {_right_channels(channels)}')
    for number, name in channels.items():
        if name != name.strip() or not name:
            raise DataError(
                f'{source}: channel {number} in "{key}" is named {shortened(name)}; the name selects the normalization '
                f'("CT" has one of its own), so it must not be empty or have spaces around it'
            )


def _is_number(text: object) -> bool:
    return isinstance(text, str) and text.isdecimal() and len(text) <= len("0000")


def _right_channels(given: Any) -> str:
    """Show the given channels in the right form, where it can be told which names are meant."""
    names: list[Any] = []
    if isinstance(given, list):
        names = given
    elif isinstance(given, dict) and all(map(_is_number, given)):
        names = [given[key] for key in sorted(given, key=int)]
    elif isinstance(given, dict) and all(is_integer(value) or _is_number(value) for value in given.values()):
        names = [name for name, _ in sorted(given.items(), key=lambda entry: int(entry[1]))]
    if not names or not all(isinstance(name, str) and name for name in names):
        return _CHANNELS_FORM
    right = ", ".join(f'"{number}": "{name}"' for number, name in enumerate(names))
    return f"it maps the number of each channel, counted from 0, to its name: write {{{right}}}"


def _check_labels(content: Mapping[str, Any], source: str, *, trained: bool) -> None:
    if "labels" not in content:
        raise DataError(
            f'{source} has no key "labels"; it maps names to integers, like {{"background": 0, "liver": 1, "tumor": 2}}'
        )
    labels, order = content["labels"], content.get("regions_class_order")
    try:
        check_declaration(labels, order, allow_lost_regions=True)
        reason = reason_of_loss(labels, order) if has_any_region(labels) else None
        if reason is not None and not trained:
            raise DataError(f"dataset.json: {reason}")
    except DataError as err:
        raise DataError(str(err).replace("dataset.json", source, 1)) from err
    if reason is not None:
        logger.warning("%s: %s", source, reason)
    if not trained:
        _check_names_of_labels(labels, source)


def _check_names_of_labels(labels: Mapping[str, Entry], source: str) -> None:
    names: dict[frozenset[int], str] = {}
    for name, entry in labels.items():
        if name != "background" and only_background(entry):
            continue
        other = names.setdefault(frozenset(members(entry)), name)
        if other != name:
            raise DataError(
                f'{source}: {shortened(other)} and {shortened(name)} in "labels" are both {shortened(entry)}; each '
                f"class or region needs its own integers"
            )
    if all(name == "ignore" or only_background(entry) for name, entry in labels.items()):
        raise DataError(f'{source}: "labels" has no class besides the background; add one, like "liver": 1')


def _check_reader(content: Mapping[str, Any], source: str) -> None:
    reader = content.get("overwrite_image_reader_writer")
    if reader is not None and not (isinstance(reader, str) and reader.isidentifier()):
        raise DataError(
            f'{source}: "overwrite_image_reader_writer" is {shortened(reader)}; it is the name of a class that reads '
            f'images, like "SimpleITKIO"; remove it to have one chosen'
        )


def _check_number_of_cases(content: Mapping[str, Any], source: str) -> None:
    if "numTraining" not in content:
        raise DataError(f'{source} has no key "numTraining"; it is the number of training cases, like 40')
    number = content["numTraining"]
    if not is_integer(number) or number < 1:
        text = isinstance(number, str) and number.strip().isdecimal()
        right = f"write it without quotes: {number.strip()}" if text else "like 40"
        raise DataError(
            f'{source}: "numTraining" is {shortened(number)}; it must be an integer, the number of training cases, '
            f"{right}"
        )


def file_ending(content: Mapping[str, Any], source: str = "dataset.json") -> str:
    """Return the entry `file_ending`. Raises `DataError` if it is missing, or not one ending like `.nii.gz`."""
    if "file_ending" not in content:
        raise DataError(f'{source} has no key "file_ending"; it is the ending of all images and labels, like ".nii.gz"')
    return check_file_ending(content["file_ending"], source)


def check_listed_cases(cases: Any, source: str = "dataset.json") -> None:
    """Check the entry `dataset`, which lists the files of each case instead of `imagesTr` and `labelsTr`.

    Raises:
        DataError: it does not map names of cases to their files.
    """
    form = 'it maps each case to its files, like {"case_1": {"images": ["a.png", "b.png"], "label": "c.png"}}'
    if not isinstance(cases, dict) or not cases:
        raise DataError(f'{source}: "dataset" is {shortened(cases)}; {form}')
    for case, entry in cases.items():
        check_case_identifier(case)
        if not isinstance(entry, dict) or not _are_paths(entry.get("images")) or not _is_path(entry.get("label")):
            raise DataError(f'{source}: case {shortened(case)} in "dataset" is {shortened(entry)}; {form}')


def _are_paths(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_path, value))


def _is_path(value: Any) -> bool:
    """Absolute paths are allowed: images may lie anywhere, and are only read."""
    return isinstance(value, str) and bool(value) and "\0" not in value
