"""Reject imports that leak test pictures, and warn of what is probably a mistake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunetv2.dataset_conversion.import_images.case_record import CaseRecord
from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, IGNORE, Classes
from nnunetv2.dataset_conversion.import_images.layouts.layout import TEST, TRAIN, VALIDATION
from nnunetv2.errors import DataError
from nnunetv2.utilities.message_parts import counted

_INVERTED_SHARE = 0.6  # of the pixels are foreground
_INVERTED_FILES = 0.8  # of the masks are so
_SHOWN = 5


@dataclass(frozen=True)
class Warned:
    """A warning and the cases it is about, the worst first."""

    text: str
    cases: tuple[str, ...] = ()


def warnings_on(records: Sequence[CaseRecord], classes: Classes) -> list[Warned]:
    """Looks at all cases together.

    Raises:
        DataError: a picture is in training and test, or in the training and validation that an export brings, or there
            is no foreground at all.
    """
    labelled = [record for record in records if record.pixels]
    if labelled and not any(_foreground(record) for record in labelled):
        raise DataError(
            f"None of the {counted(len(labelled), 'mask')} has a pixel of {', '.join(classes.names)}; look whether "
            f"--labels and the masks belong together"
        )
    return [
        *_same_pictures(records),
        *_absent_classes(labelled, classes),
        *_empty_masks(labelled),
        *_inverted_masks(labelled),
        *_groups_in_both(records),
        *_snapped_pixels(labelled),
        *_overlaps(labelled),
    ]


def _foreground(record: CaseRecord) -> int:
    return sum(count for name, count in record.pixels.items() if name not in (BACKGROUND, IGNORE))


def same_pictures(records: Sequence[CaseRecord]) -> list[list[CaseRecord]]:
    """Groups of cases with equal pixels."""
    found = defaultdict(list)
    for record in records:
        found[record.pixels_sha256].append(record)
    return [each for each in found.values() if len(each) > 1]


def _same_pictures(records: Sequence[CaseRecord]) -> list[Warned]:
    warnings = []
    for same in same_pictures(records):
        names = " and ".join(f"{record.case} ({record.image})" for record in same)
        parts = {record.part for record in same}
        if TEST in parts and len(parts) > 1:
            raise DataError(
                f"The same picture is in training and test: {names}; scores would be too high, so remove one"
            )
        if {TRAIN, VALIDATION} <= parts:
            raise DataError(
                f"The same picture is in training and validation: {names}; scores would be too high, so remove one"
            )
        warnings.append(Warned(f"the same picture twice: {names}; remove one", tuple(each.case for each in same)))
    return warnings


def _absent_classes(labelled: Sequence[CaseRecord], classes: Classes) -> list[Warned]:
    totals = {name: sum(record.pixels.get(name, 0) for record in labelled) for name in classes.labels}
    absent = [name for name, total in totals.items() if not total and name not in (BACKGROUND, IGNORE)]
    if not labelled or not absent:
        return []
    return [Warned(f"no mask has a pixel of {', '.join(absent)}; a network cannot learn what it never sees")]


def _empty_masks(labelled: Sequence[CaseRecord]) -> list[Warned]:
    empty = tuple(record.case for record in labelled if not _foreground(record))
    return [Warned(f"{counted(len(empty), 'mask')} without foreground: {_listed(empty)}", empty)] if empty else []


def _inverted_masks(labelled: Sequence[CaseRecord]) -> list[Warned]:
    shares = {}
    for record in labelled:
        counted_pixels = sum(record.pixels.values()) - record.pixels.get(IGNORE, 0)
        shares[record.case] = _foreground(record) / counted_pixels if counted_pixels else 0.0
    inverted = [case for case, share in shares.items() if share > _INVERTED_SHARE]
    if not inverted or len(inverted) <= _INVERTED_FILES * len(labelled):
        return []
    worst = tuple(sorted(inverted, key=lambda case: (-shares[case], case)))
    return [
        Warned(
            f"more than {_INVERTED_SHARE:.0%} of the pixels are foreground in {len(inverted)} of {len(labelled)} "
            f"masks; they may be inverted: then name both, as in --labels background=255 vessel=0",
            worst,
        )
    ]


def _groups_in_both(records: Sequence[CaseRecord]) -> list[Warned]:
    groups: Mapping[str, dict[bool, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.group:
            groups[record.group][record.part == TEST].append(record.case)
    both = {name: parts for name, parts in groups.items() if len(parts) > 1}
    return [
        Warned(
            f"the group {name} is in imagesTr ({_listed(parts[False])}) and imagesTs ({_listed(parts[True])}); scores "
            f"on the test would be too high",
            (*parts[False], *parts[True]),
        )
        for name, parts in sorted(both.items())
    ]


def _snapped_pixels(labelled: Sequence[CaseRecord]) -> list[Warned]:
    snapped = sorted((each for each in labelled if each.snapped), key=lambda each: (-_snapped_share(each), each.case))
    if not snapped:
        return []
    worst = snapped[0]
    return [
        Warned(
            f"{sum(each.snapped for each in snapped)} pixels in {counted(len(snapped), 'mask')} took the nearest "
            f"colour or value ({', '.join(f'{each.case} {each.snapped}' for each in snapped[:_SHOWN])}"
            f"{', ...' if len(snapped) > _SHOWN else ''}; all in import.csv); the largest share is "
            f"{_snapped_share(worst):.2%}, in {worst.case}",
            tuple(each.case for each in snapped),
        )
    ]


def _snapped_share(record: CaseRecord) -> float:
    return record.snapped / (record.height * record.width)


def _overlaps(labelled: Sequence[CaseRecord]) -> list[Warned]:
    overlapping = sorted(
        (each for each in labelled if each.overlapping), key=lambda each: (-each.overlapping, each.case)
    )
    if not overlapping:
        return []
    return [
        Warned(
            f"{sum(each.overlapping for each in overlapping)} pixels in {counted(len(overlapping), 'case')} belong to "
            f"several classes, most in {overlapping[0].case} ({overlapping[0].overlapping})",
            tuple(each.case for each in overlapping),
        )
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
