"""Regions of several classes, and the entries of dataset.json that declare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnunetv2.dataset_conversion.import_images.classes import BACKGROUND, IGNORE, Classes
from nnunetv2.errors import UsageError
from nnunetv2.utilities.label_handling.region_order import larger_first, lossless_order

Declaration = dict[str, int | list[int]]


def declare_labels(classes: Classes, regions: Sequence[str]) -> tuple[Declaration, list[int] | None, list[str]]:
    """Returns the entries `labels` and `regions_class_order`, and notes on what was added.

    A class that the regions alone could not restore, such as the crossings of `artery=artery+crossing` and
    `vein=vein+crossing`, becomes a region of its own, the last.

    Args:
        regions: `vessel=artery+vein`, as on the command line; empty for plain classes.

    Raises:
        UsageError: a region has another form or names no class, or a class belongs to no region.
    """
    labels = classes.labels
    if not regions:
        return labels, None, []
    found = _parsed(regions, {name: label for name, label in labels.items() if name not in (BACKGROUND, IGNORE)})
    lacking = [name for name in classes.names if not any(labels[name] in members for members in found.values())]
    if lacking:
        raise UsageError(
            f"--regions leaves out {', '.join(lacking)}; add a region with it, such as {lacking[0]}={lacking[0]}"
        )
    found, order, added = _restorable(found, classes)
    notes = [f"regions overlap in {name}, so that it (label {label}) is a region too" for name, label in added.items()]
    declared: Declaration = {BACKGROUND: 0}
    for name, members in found.items():
        declared[name] = sorted(members) if len(members) > 1 else min(members)
    if classes.has_ignore:
        declared[IGNORE] = classes.ignore_label
    return declared, order, notes


def _parsed(texts: Sequence[str], labels: Mapping[str, int]) -> dict[str, frozenset[int]]:
    found: dict[str, frozenset[int]] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        parts = given.split("+")
        if not name or not equals or name in (BACKGROUND, IGNORE) or name in found:
            raise UsageError(f"--regions {text!r} is not of the form NAME=CLASS+CLASS, with each name once")
        if unknown := [part for part in parts if part not in labels]:
            raise UsageError(f"--regions {text!r}: {unknown[0]!r} is no class; there are {', '.join(labels)}")
        found[name] = frozenset(labels[part] for part in parts)
    return found


def _restorable(
    regions: dict[str, frozenset[int]], classes: Classes
) -> tuple[dict[str, frozenset[int]], list[int], dict[str, int]]:
    """Regions in an order in which a label map restores them, their integers, and the regions added for that."""
    added: dict[str, int] = {}
    remaining = sorted(classes.names, key=lambda name: -sum(classes.labels[name] in each for each in regions.values()))
    while True:
        for candidate in (regions, larger_first(regions)):
            if (order := lossless_order(candidate)) is not None:
                return candidate, order, added
        label = classes.labels[remaining[0]]
        name = remaining.pop(0)
        shown = name if name not in regions else f"{name}_only"
        regions = regions | {shown: frozenset({label})}
        added[shown] = label
