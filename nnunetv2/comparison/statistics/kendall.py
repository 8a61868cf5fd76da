"""Agreement of rankings."""

from __future__ import annotations

import numpy as np


def kendall_tau(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each row of (B, M) with the reference (M,), from -1 to 1; NaN where either is one tie.

    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
    """
    first, second = np.triu_indices(len(reference), k=1)
    order = np.sign(scores[:, first] - scores[:, second])
    reference_order = np.sign(reference[first] - reference[second])
    num_untied = np.abs(order).sum(axis=1) * np.abs(reference_order).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return (order @ reference_order) / np.sqrt(num_untied)
