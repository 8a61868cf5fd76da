"""What a score is where a class is not in the reference, or is not predicted: decided by the reference alone.

A mean over the cases in which a score happens to be defined compares models on different cases: one that rightly
predicts nothing loses the case, one with a false positive keeps it. Here a case counts for all models or for none.

| reference | prediction | rule of overlaps | rule of distances |
|---|---|---|---|
| empty | empty | left out; 1 with the policy `one` | left out |
| empty | not empty | left out; 0 with the policy `one` | left out |
| not empty | empty | 0 | the diagonal of the image, counted |

Every metric has a rule (`nnunetv2.comparison.metric.EmptyMasks`), which may also be one of its own.
"""

from __future__ import annotations

import numpy as np

from nnunetv2.comparison.metric import COMPUTED, METRICS


def apply_empty_policy(
    metric: str,
    measured: np.ndarray,
    num_reference: np.ndarray,
    num_predicted: np.ndarray,
    diagonals: np.ndarray,
    policy: str,
) -> np.ndarray:
    """Gives every pair of masks its score, by the rule of the metric.

    Args:
        metric: name of one of `METRICS`.
        measured: (R, N, K) values of R runs on N cases and K classes; anything where one of the
            masks is empty and the rule of the metric does not say that it is computed.
        num_reference: (N, K) voxels of the class in the reference.
        num_predicted: (R, N, K) voxels of the class in the prediction.
        diagonals: (N,) of the images, in mm.
        policy: one of `EMPTY_POLICIES`.

    Returns:
        (R, N, K) scores; NaN where the case does not count for the class, in all runs alike.
    """
    is_absent = np.broadcast_to(num_reference == 0, measured.shape)
    is_unpredicted = num_predicted == 0
    rule = METRICS[metric].empty_masks
    if rule.missed == COMPUTED:
        scores = measured
    else:
        missed = diagonals[:, None] if METRICS[metric].is_distance else rule.missed
        scores = np.where(is_unpredicted, missed, measured)
    if policy != "one" or rule.absent is None:
        in_absent_class = np.nan
    else:
        in_absent_class = measured if rule.absent == COMPUTED else np.where(is_unpredicted, *rule.absent)
    return np.where(is_absent, in_absent_class, scores)


def count_missed(num_reference: np.ndarray, num_predicted: np.ndarray) -> np.ndarray:
    """Returns (R, K): the cases with the class in which nothing is predicted; their distance is the diagonal."""
    return ((num_reference > 0) & (num_predicted == 0)).sum(axis=1)
