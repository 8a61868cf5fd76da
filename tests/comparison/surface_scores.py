"""The metrics of surfaces, for tests of two masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunetv2.comparison.mask_pair import MaskPair
from nnunetv2.comparison.metric import METRICS


def surface_scores(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], tolerance: float
) -> dict[str, float]:
    """NSD, HD95 and ASSD of two masks that are not empty."""
    pair = MaskPair.of_masks(prediction, reference, tuple(spacing), tolerance)
    return {name: METRICS[name].compute(pair) for name in ("NSD", "HD95", "ASSD")}
