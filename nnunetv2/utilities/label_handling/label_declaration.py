"""Validate the entries `labels` and `regions_class_order` of a dataset.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2.errors import DataError

Entry = int | Sequence[int]

_EXAMPLE = '{"background": 0, "liver": 1, "tumor": 2}'


def members(entry: Entry) -> tuple[int, ...]:
    """Integers that a label contains."""
    values = entry if isinstance(entry, (list, tuple)) else (entry,)
    return tuple(int(value) for value in values)


def is_region(entry: Entry) -> bool:
    """Whether a label contains several integers."""
    return isinstance(entry, (list, tuple)) and len(entry) > 1


def only_background(entry: Entry) -> bool:
    return set(members(entry)) == {0}


def has_any_region(labels: Mapping[str, Entry]) -> bool:
    return any(is_region(entry) for name, entry in labels.items() if name != "ignore")


def check_declaration(
    labels: Mapping[str, Entry], regions_class_order: Sequence[int] | None, *, use_regions: bool = True
) -> None:
    """Validate the labels of a dataset.json.

    Args:
        labels: the entry `labels`.
        regions_class_order: the entry of that name, if any.
        use_regions: whether regions, if any, are treated as such.

    Raises:
        DataError: names the invalid key and the expected form.
    """
    if not isinstance(labels, Mapping):
        raise DataError(f'dataset.json: "labels" is {labels!r}; it must map names to integers, like {_EXAMPLE}')
    _check_values(labels)
    _check_background(labels)
    if not has_any_region(labels):
        _check_consecutive(labels)
    elif use_regions:
        _check_class_order(labels, regions_class_order)
    _check_ignore(labels)


def _check_values(labels: Mapping[str, Entry]) -> None:
    for name, entry in labels.items():
        values = entry if isinstance(entry, (list, tuple)) and len(entry) else [entry]
        if not all(_is_integer(value) for value in values):
            raise DataError(
                f'dataset.json: label {name!r} in "labels" is {entry!r}; a label is an integer of at least 0, or a '
                f"list of such integers (a region); names come first (nnU-Net v1 had integers first), like {_EXAMPLE}"
            )


def _is_integer(value: object) -> bool:
    if isinstance(value, str):
        return value.isdecimal()
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 0


def _check_background(labels: Mapping[str, Entry]) -> None:
    entry = labels.get("background")
    if entry is None:
        raise DataError(f'dataset.json: "labels" does not declare "background"; it must be 0, like {_EXAMPLE}')
    if isinstance(entry, (list, tuple)) or int(entry) != 0:
        raise DataError(f'dataset.json: "background" in "labels" is {entry!r}; it must be 0')


def _check_consecutive(labels: Mapping[str, Entry]) -> None:
    used = sorted({value for name, entry in labels.items() if name != "ignore" for value in members(entry)})
    if used != list(range(len(used))):
        missing = sorted(set(range(used[-1])) - set(used))
        raise DataError(
            f'dataset.json: "labels" uses the integers {used}, without {missing}; they must be 0, 1, 2, ... without '
            f"gaps: renumber them here and in the label images"
        )


def _check_ignore(labels: Mapping[str, Entry]) -> None:
    if "ignore" not in labels:
        return
    entry = labels["ignore"]
    highest = max(value for name, other in labels.items() if name != "ignore" for value in members(other))
    if not isinstance(entry, (int, np.integer)) or entry != highest + 1:
        raise DataError(
            f'dataset.json: "ignore" in "labels" is {entry!r}; '
            f"it must be one integer, the highest of all: {highest + 1}"
        )


def _check_class_order(labels: Mapping[str, Entry], order: Sequence[int] | None) -> None:
    regions = [name for name, entry in labels.items() if name != "ignore" and not only_background(entry)]
    if order is None:
        raise DataError(
            f'dataset.json has regions but no "regions_class_order"; it lists the integer that each of the regions '
            f"{', '.join(regions)} writes into the segmentation, in this order"
        )
    if len(order) != len(regions):
        raise DataError(
            f'dataset.json: "regions_class_order" has {len(order)} entries; '
            f"it needs one for each of the {len(regions)} regions {', '.join(regions)}, in this order"
        )
