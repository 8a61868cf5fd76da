"""Score tables for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.scores import Run, ScoreTable


def score_table(
    scores: Mapping[str, np.ndarray],
    metrics: Sequence[str] = ("Dice",),
    classes: Sequence[str] = ("organ",),
    num_reference: np.ndarray | None = None,
    num_predicted: np.ndarray | None = None,
) -> ScoreTable:
    """Of each method (S, N) scores, or (S, N, K); other metrics than the first are 1 - score where lower is better."""
    values = {method: np.atleast_3d(np.asarray(each, dtype=float)) for method, each in scores.items()}
    runs = tuple(
        Run(method, Path(method), {}, {}, number=number)
        for method, of_method in values.items()
        for number in range(len(of_method))
    )
    stacked = np.concatenate(list(values.values()))
    num_runs, num_cases, num_classes = stacked.shape
    assert num_classes == len(classes)
    return ScoreTable(
        runs=runs,
        cases=tuple(f"case_{number:03d}" for number in range(num_cases)),
        classes=tuple(classes),
        values={name: stacked if METRICS[name].higher_is_better else 1 - stacked for name in metrics},
        num_reference=np.full((num_cases, num_classes), 9) if num_reference is None else num_reference,
        num_predicted=np.full((num_runs, num_cases, num_classes), 9) if num_predicted is None else num_predicted,
        voxel_volume=np.linspace(1, 2, num_cases),
        num_dimensions=3,
        num_worst_distances={},
    )


def random_scores(methods: Mapping[str, float], num_runs: int, num_cases: int, num_classes: int = 1, seed: int = 0):
    """Of each method, by its mean, (S, N, K) scores of cases of differing difficulty."""
    rng = np.random.default_rng(seed)
    difficulty = 0.08 * rng.standard_normal((1, num_cases, num_classes))
    return {
        method: mean
        + difficulty
        + 0.005 * rng.standard_normal((num_runs, 1, 1))
        + 0.03 * rng.standard_normal((num_runs, num_cases, num_classes))
        for method, mean in methods.items()
    }
