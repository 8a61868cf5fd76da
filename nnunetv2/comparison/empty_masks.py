"""Scores where a mask of a class is empty; the reference alone decides whether a case counts.

A mean over the cases where a score happens to be defined would compare models on different cases: a model that
correctly predicts nothing loses the case, one with a false positive keeps it. Here a case counts for all or for none.

| reference | prediction | rule of overlaps | rule of distances |
|---|---|---|---|
| empty | empty | excluded; 1 with the policy `one` | excluded |
| empty | not empty | excluded; 0 with the policy `one` | excluded |
| not empty | empty | 0 | the diagonal of the image, counted |

Every metric declares its rule (`nnunetv2.comparison.metric.EmptyMasks`), which may differ from both.
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
    """Replace undefined values by the scores that the rule of the metric assigns.

    Args:
        metric: name of one of `METRICS`.
        measured: (R, N, K) values of R runs on N cases and K classes; arbitrary where a mask is empty, unless the
            rule of the metric says "computed".
        num_reference: (N, K) voxels of the class in the reference.
        num_predicted: (R, N, K) voxels of the class in the prediction.
        diagonals: (N,) of the images, in mm.
        policy: one of `EMPTY_POLICIES`.

    Returns:
        (R, N, K) scores; NaN where the case does not count for the class, for all runs alike.
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
    """(R, K) number of cases in which a class is present but not predicted; their distance is the diagonal."""
    return ((num_reference > 0) & (num_predicted == 0)).sum(axis=1)
