"""Simulate how `regions_class_order` writes regions into a label map, and find the regions that this would lose.

The regions are written one after the other, each as one integer; where they overlap, the later one wins. A region can
be recovered from the label map if, for every label, the integer written for its voxels belongs to the region exactly if
the label does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Members = frozenset[int]


@dataclass(frozen=True)
class Loss:
    """What a perfect network would lose."""

    regions: list[str]
    """names of the regions that cannot be recovered from the label map"""
    example: tuple[int, int]
    """a label, and the integer written for its voxels"""


def lost_regions(regions: Mapping[str, Members], order: Sequence[int]) -> Loss | None:
    """Find the regions that a perfect prediction loses when it is written as a label map; None if there are none.

    Args:
        regions: labels of each region, in the order of dataset.json.
        order: integer written for each region.
    """
    written = _written_values(regions, order)
    lost = [name for name, members in regions.items() if _recovered(members, written) != members]
    if not lost:
        return None
    wrong = (
        (label, value)
        for label, value in sorted(written.items())
        for name in lost
        if (label in regions[name]) != (value in regions[name])
    )
    return Loss(lost, next(wrong))


def _written_values(regions: Mapping[str, Members], order: Sequence[int]) -> dict[int, int]:
    written = {0: 0}
    for members, value in zip(regions.values(), order, strict=True):
        written.update(dict.fromkeys(members, int(value)))
    return written


def _recovered(members: Members, written: Mapping[int, int]) -> Members:
    return frozenset(label for label, value in written.items() if value in members)


def lossless_order(regions: Mapping[str, Members], preferred: Sequence[int] | None = None) -> list[int] | None:
    """Find integers with which all regions can be recovered; None if no integers do in this sequence of the regions.

    Args:
        preferred: integers to keep where they are right.
    """
    signatures = _signatures(regions)
    last = {label: name for name, members in regions.items() for label in members}
    order = []
    for position, (name, members) in enumerate(regions.items()):
        visible = sorted(label for label in members if last[label] == name) or sorted(members)
        needed = {signatures[label] for label in visible}
        if last[visible[0]] == name and len(needed) > 1:
            return None
        given = None if preferred is None else preferred[position]
        order.append(int(given) if given in signatures and signatures[given] in needed else visible[0])
    return order


def _signatures(regions: Mapping[str, Members]) -> dict[int, frozenset[str]]:
    """Map each label, including 0, to the names of its regions."""
    found: dict[int, set[str]] = {0: set()}
    for name, members in regions.items():
        for label in members:
            found.setdefault(label, set()).add(name)
    return {label: frozenset(names) for label, names in found.items()}


def larger_first(regions: Mapping[str, Members]) -> dict[str, Members]:
    """Sort regions by their number of labels, so that each one follows those that contain it."""
    return dict(sorted(regions.items(), key=lambda region: -len(region[1])))
