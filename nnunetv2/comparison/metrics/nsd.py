"""Agreement of two surfaces within a tolerance."""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import AS_OVERLAP, DISTANCES, Metric, register_metric


@register_metric("NSD")
class NSD(Metric):
    """Normalised surface Dice.

    As MONAI's `compute_surface_dice` without subvoxels: counts edge voxels instead of measuring surface area.

    Source: Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", 2021.
    """

    meaning = "normalised surface Dice"
    definition = (
        "share of the edge voxels of both masks that lie within {tolerance} mm (the tolerance) of the edge of the "
        "other mask; voxels are counted, not the area of the surface around them."
    )
    higher_is_better = True
    empty_masks = AS_OVERLAP
    reads = (DISTANCES,)

    def compute(self, pair: MaskPair) -> float:
        # Distances are float32: without rounding the tolerance too, a distance equal to it could fall outside.
        return float(np.mean(pair.distances.both <= np.float32(pair.tolerance)))
