"""Names of the classes or regions that a model is scored for, as dataset.json has them."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.utilities.label_handling.label_declaration import members
from nnunetv2.utilities.label_handling.label_handling import IGNORE, LabelManager, Region


def foreground_names(labels: LabelManager) -> dict[Region, str]:
    """The name of each foreground label, or region, in the order in which scores come."""
    foreground = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    named = {_key(entry, labels.has_regions): name for name, entry in labels.label_dict.items() if name != IGNORE}
    return {label: named.get(label, str(label)) for label in foreground}


def _key(entry: int | Sequence[int], is_region: bool) -> Region:
    values = members(entry)
    return values[0] if isinstance(entry, int) or (len(values) == 1 and not is_region) else values
