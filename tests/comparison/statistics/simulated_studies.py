"""Studies of which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MEAN, CASE_DEVIATION = 0.85, 0.08
REST_DEVIATION = 0.03  # of a score, by case and training


def simulated_studies(
    num_studies: int,
    num_trainings: Sequence[int],
    seed_deviations: Sequence[float],
    num_cases: int = 50,
    method_by_case: float = 0.0,
    gains: Sequence[float] | None = None,
    seed: int = 0,
) -> list[np.ndarray]:
    """Of each method (num_studies, S, N) Dice scores, at most 1, of cases whose difficulty is skewed.

    Args:
        num_trainings: of each method.
        seed_deviations: of each method, the standard deviation of what one training adds to all cases.
        method_by_case: standard deviation of what a method makes of a case, whatever the training.
        gains: of each method, what it adds to all scores.
    """
    rng = np.random.default_rng(seed)
    shape = 3.5
    difficulty = rng.gamma(shape, CASE_DEVIATION / shape**0.5, (num_studies, 1, num_cases))
    cases = MEAN + CASE_DEVIATION * shape**0.5 - difficulty
    methods = []
    for number, (trainings, deviation) in enumerate(zip(num_trainings, seed_deviations, strict=True)):
        scores = cases + (gains[number] if gains else 0.0)
        if method_by_case:
            scores = scores + method_by_case * rng.standard_normal((num_studies, 1, num_cases))
        scores = scores + deviation * rng.standard_normal((num_studies, trainings, 1))
        scores = scores + REST_DEVIATION * rng.standard_normal((num_studies, trainings, num_cases))
        methods.append(np.minimum(scores, 1.0))
    return methods
