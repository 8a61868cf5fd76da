"""Names of a model's scored classes or regions, from dataset.json."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.utilities.label_handling.label_declaration import members
from nnunetv2.utilities.label_handling.label_handling import IGNORE, LabelManager, Region


def foreground_names(labels: LabelManager) -> dict[Region, str]:
    """Map each foreground label or region to its name, in the order of the scores."""
    foreground = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    named = {_key(entry, labels.has_regions): name for name, entry in labels.label_dict.items() if name != IGNORE}
    return {label: named.get(label, str(label)) for label in foreground}


def named_labels(labels: LabelManager) -> dict[str, int]:
    """Number of each label that can be part of a region: by its name, or by its number if only regions are named."""
    named = {name: entry for name, entry in labels.label_dict.items() if isinstance(entry, int)}
    unnamed = set(labels.all_labels) - set(named.values())
    return {**named, **{str(label): label for label in sorted(unnamed)}}


def _key(entry: int | Sequence[int], is_region: bool) -> Region:
    values = members(entry)
    return values[0] if isinstance(entry, int) or (len(values) == 1 and not is_region) else values
