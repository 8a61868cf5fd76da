"""What a score is where a class is not in the reference, or is not predicted: decided by the reference alone.

A mean over the cases in which a score happens to be defined compares models on different cases: one that rightly
predicts nothing loses the case, one with a false positive keeps it. Here a case counts for all models or for none.

| reference | prediction | Dice, IoU, NSD | HD95, ASSD |
|---|---|---|---|
| empty | empty | left out; 1 with the policy `one` | left out |
| empty | not empty | left out; 0 with the policy `one` | left out |
| not empty | empty | 0 | the diagonal of the image, counted |
"""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.settings import METRICS


def is_distance(metric: str) -> bool:
    """Whether a metric is in mm, and so has no worst value but the size of the image."""
    return METRICS[metric].unit == "mm"


def apply_empty_policy(
    metric: str,
    measured: np.ndarray,
    num_reference: np.ndarray,
    num_predicted: np.ndarray,
    diagonals: np.ndarray,
    policy: str,
) -> np.ndarray:
    """Gives every pair of masks its score; see the table of this module.

    Args:
        metric: name of one of `METRICS`.
        measured: (R, N, K) values of R runs on N cases and K classes; anything where one of the masks is empty.
        num_reference: (N, K) voxels of the class in the reference.
        num_predicted: (R, N, K) voxels of the class in the prediction.
        diagonals: (N,) of the images, in mm.
        policy: one of `EMPTY_POLICIES`.

    Returns:
        (R, N, K) scores; NaN where the case does not count for the class, in all runs alike.
    """
    is_absent = np.broadcast_to(num_reference == 0, measured.shape)
    is_unpredicted = num_predicted == 0
    if is_distance(metric):
        scores = np.where(is_unpredicted, diagonals[:, None], measured)
    else:
        scores = np.where(is_unpredicted, 0.0, measured)
    in_absent_class = is_unpredicted.astype(float) if policy == "one" and not is_distance(metric) else np.nan
    return np.where(is_absent, in_absent_class, scores)


def count_missed(num_reference: np.ndarray, num_predicted: np.ndarray) -> np.ndarray:
    """Returns (R, K): the cases with the class in which nothing is predicted; their distance is the diagonal."""
    return ((num_reference > 0) & (num_predicted == 0)).sum(axis=1)
