"""Validate the entries `labels` and `regions_class_order` of a dataset.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral

from nnunetv2.errors import DataError
from nnunetv2.utilities.file_names import shortened
from nnunetv2.utilities.label_handling.region_order import Members, larger_first, lossless_order, lost_regions

Entry = int | Sequence[int]

HIGHEST_LABEL = 32767  # preprocessed labels are stored in 16 bits
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
    labels: Mapping[str, Entry],
    regions_class_order: Sequence[int] | None,
    *,
    use_regions: bool = True,
    allow_lost_regions: bool = False,
) -> None:
    """Validate the labels of a dataset.json.

    Args:
        labels: the entry `labels`.
        regions_class_order: the entry of that name, if any.
        use_regions: whether regions, if any, are treated as such.
        allow_lost_regions: accept an order with which regions are lost, as that of a model trained elsewhere.

    Raises:
        DataError: names the invalid key and the expected form.
    """
    if not isinstance(labels, Mapping):
        raise DataError(
            f'dataset.json: "labels" is {shortened(labels)}; it must map names to integers, like {_EXAMPLE}'
        )
    _check_values(labels)
    _check_background(labels)
    if not has_any_region(labels):
        _check_consecutive(labels)
    elif use_regions:
        _check_class_order(labels, regions_class_order)
        if not allow_lost_regions and (reason := reason_of_loss(labels, regions_class_order)) is not None:
            raise DataError(f"dataset.json: {reason}")
    _check_ignore(labels)


def _check_values(labels: Mapping[str, Entry]) -> None:
    for name, entry in labels.items():
        values = entry if isinstance(entry, (list, tuple)) and len(entry) else [entry]
        if not all(_is_label(value) for value in values):
            raise DataError(
                f'dataset.json: label {shortened(name)} in "labels" is {shortened(entry)}; a label is an integer from '
                f"0 to {HIGHEST_LABEL}, or a list of such integers (a region); names come first (nnU-Net v1 had "
                f"integers first), like {_EXAMPLE}"
            )


def _is_label(value: object) -> bool:
    if isinstance(value, str):
        return value.isdecimal() and len(value) <= len(str(HIGHEST_LABEL)) and int(value) <= HIGHEST_LABEL
    return is_integer(value) and 0 <= value <= HIGHEST_LABEL


def is_integer(value: object) -> bool:
    """Whether a value of a JSON file is an integer, which `true` is not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


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
    if not is_integer(entry) or entry != highest + 1:
        raise DataError(
            f'dataset.json: "ignore" in "labels" is {entry!r}; '
            f"it must be one integer, the highest of all: {highest + 1}"
        )


def _foreground(labels: Mapping[str, Entry]) -> dict[str, Members]:
    return {
        name: frozenset(members(entry))
        for name, entry in labels.items()
        if name != "ignore" and not only_background(entry)
    }


def _check_class_order(labels: Mapping[str, Entry], order: Sequence[int] | None) -> None:
    regions = _foreground(labels)
    if order is None:
        proposed = lossless_order(regions)
        hint = "" if proposed is None else f": {proposed}"
        raise DataError(
            f'dataset.json has regions but no "regions_class_order"; it lists the integer that each of the regions '
            f"{', '.join(regions)} writes into the segmentation, in this order{hint}"
        )
    if not (isinstance(order, (list, tuple)) or hasattr(order, "__array__")) or not all(map(is_integer, order)):
        raise DataError(
            f'dataset.json: "regions_class_order" is {shortened(order)}; it must be a list of integers without quotes, '
            f"one for each of the {len(regions)} regions {', '.join(regions)}, like {lossless_order(regions) or [1, 2]}"
        )
    if len(order) != len(regions):
        raise DataError(
            f'dataset.json: "regions_class_order" has {len(order)} entries; '
            f"it needs one for each of the {len(regions)} regions {', '.join(regions)}, in this order"
        )


def reason_of_loss(labels: Mapping[str, Entry], order: Sequence[int]) -> str | None:
    """Describe the regions that would be lost when a prediction is written as a label map, with the cure.

    Args:
        labels: valid entry `labels` with regions.
        order: entry `regions_class_order`, one integer for each region.

    Returns:
        None if all regions can be recovered.
    """
    regions = _foreground(labels)
    loss = lost_regions(regions, order)
    if loss is None:
        return None
    label, value = loss.example
    return (
        f'"regions_class_order" {[int(each) for each in order]} loses {", ".join(loss.regions)}, even of a perfect '
        f"prediction; {_cure(regions, order)} (regions are written one over the other, so that voxels of label {label} "
        f"end up as {value})"
    )


def _cure(regions: Mapping[str, Members], order: Sequence[int]) -> str:
    proposed = lossless_order(regions, order)
    if proposed is not None:
        return f"write {proposed}"
    nested = larger_first(regions)
    proposed = lossless_order(nested)
    if proposed is not None:
        return f'list the regions in "labels" as {", ".join(nested)}, larger ones first, and write {proposed}'
    return (
        "no order keeps them, because regions overlap and neither contains the other; "
        "declare their overlap as one more region, the last one"
    )
