"""Voxels of several classes, such as artery and vein: which of them are found, and which get the right class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnunetv2.evaluation.confusion import LabelConfusion, LabelOrRegion, labels_of


@dataclass(frozen=True)
class AmongClasses:
    """Voxel counts per class; each voxel's reference belongs to exactly one of the classes.

    A voxel of two of them, such as the crossing of an artery and a vein, has no right answer and is left out.
    """

    num_reference: tuple[int, ...]
    num_found: tuple[int, ...]
    """of these, voxels that are predicted as any of the classes"""
    num_right: tuple[int, ...]
    """of these, voxels that are predicted as the class of the reference and as no other of the classes"""
    own: int
    """position of the class that is scored"""

    def seen_from(self, own: int) -> AmongClasses:
        """The same counts for another class."""
        return replace(self, own=own)


def among_classes(confusion: LabelConfusion, classes: Sequence[LabelOrRegion]) -> AmongClasses:
    """Count voxels among classes.

    Args:
        confusion: has all labels of the classes.
        classes: labels or regions.
    """
    is_member = np.zeros((len(classes), len(confusion.counts)), dtype=bool)  # by class and code
    for position, region in enumerate(classes):
        is_member[position, [1 + confusion.labels.index(label) for label in labels_of(region)]] = True
    is_only = is_member & (is_member.sum(axis=0) == 1)
    by_class = is_only.astype(np.int64) @ confusion.counts  # (classes, codes of the prediction)
    return AmongClasses(
        num_reference=tuple(by_class.sum(axis=1).tolist()),
        num_found=tuple(by_class[:, is_member.any(axis=0)].sum(axis=1).tolist()),
        num_right=tuple((by_class * is_only).sum(axis=1).tolist()),
        own=0,
    )


def disjoint_classes(classes: Sequence[LabelOrRegion]) -> list[LabelOrRegion]:
    """Classes that contain no other one: of artery, vein and vessel (their union), artery and vein."""
    sets = [frozenset(labels_of(region)) for region in classes]
    return [region for region, own in zip(classes, sets, strict=True) if not any(other < own for other in sets)]
