"""Estimates the error rate and power of each method test on simulated studies with known truth.

    python -m benchmarks.method_test_calibration [--studies 3000] [--bootstrap_studies 300]

A study has 4 methods and 50 cases. For every kind of study, prints: without a difference, the share of studies in which
Holm's procedure finds any of the six pairs different at 0.05; and with one method 0.02 Dice better, the share in which
it is found to differ from the second, alone and as one of six pairs. The choice in
`nnunetv2.comparison.statistics.method_test` is based on these numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import t as t_distribution
from scipy.stats import ttest_ind

from nnunetv2.comparison.statistics.method_test import method_difference
from nnunetv2.comparison.statistics.verdicts import holm
from tests.comparison.statistics.simulated_studies import simulated_studies

ALPHA = 0.05
NUM_RESAMPLES = 1000
GAINS = (0.02, 0.0, 0.0, 0.0)
EQUAL = (3, 3, 3, 3)


def ours(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return method_difference(first, second).p_value()


def welch(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return ttest_ind(first.mean(axis=-1), second.mean(axis=-1), axis=-1, equal_var=False).pvalue


def plain_sum(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sums the variances of trainings and cases; the residual is counted in both."""
    num_cases = first.shape[-1]
    parts = [((first.mean(axis=-2) - second.mean(axis=-2)).var(axis=-1, ddof=1) / num_cases, num_cases - 1)]
    for scores in (first, second):
        num_trainings = scores.shape[-2]
        parts.append((scores.mean(axis=-1).var(axis=-1, ddof=1) / num_trainings, num_trainings - 1))
    variance = sum(part for part, _ in parts)
    degrees_of_freedom = variance**2 / sum(part**2 / free for part, free in parts)
    difference = first.mean(axis=(-2, -1)) - second.mean(axis=(-2, -1))
    return 2 * t_distribution.sf(np.abs(difference) / np.sqrt(variance), degrees_of_freedom)


def two_level_bootstrap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Resamples trainings and cases with replacement; p is the share of samples on either side of 0."""
    rng = np.random.default_rng(0)

    def weights(count: int) -> np.ndarray:
        return rng.multinomial(count, np.full(count, 1 / count), NUM_RESAMPLES) / count

    p_values = []
    for one, other in zip(first, second, strict=True):
        cases = weights(one.shape[-1])
        means = [np.sum(weights(len(each)) * (cases @ each.T), axis=1) for each in (one, other)]
        share = np.mean(means[0] > means[1])
        p_values.append(2 * min(share, 1 - share))
    return np.array(p_values)


def kinds_of_studies() -> list[tuple[Sequence[int], Sequence[float], float]]:
    """Numbers of trainings, their standard deviations, and that of the method-by-case interaction."""
    deviations = (0.0, 0.005, 0.010)
    kinds = [((n,) * 4, (s,) * 4, by_case) for n in (3, 5) for s in deviations for by_case in (0.0, 0.02, 0.04)]
    kinds += [(EQUAL, (0.002, 0.010, 0.002, 0.010), by_case) for by_case in (0.0, 0.02)]
    return [*kinds, ((3, 10, 3, 10), (0.010,) * 4, 0.0), ((3, 10, 3, 10), (0.010, 0.002, 0.010, 0.002), 0.0)]


def family_of(methods: Sequence[np.ndarray], test: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Returns p-values (num_studies, pairs)."""
    return np.stack([test(*pair) for pair in combinations(methods, 2)], axis=1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=3000)
    parser.add_argument("--bootstrap_studies", type=int, default=300, help="of which the bootstrap sees the first")
    arguments = parser.parse_args(argv)
    tests = (ours, welch, plain_sum, two_level_bootstrap)
    for kind in kinds_of_studies():
        words = f"trainings {kind[0]}, deviations {kind[1]}, method by case {kind[2]}:"
        for name, gains in (("error", None), ("power", GAINS)):
            methods = simulated_studies(arguments.studies, kind[0], kind[1], 50, kind[2], gains)
            shares = []
            for test in tests:
                number = arguments.bootstrap_studies if test is two_level_bootstrap else arguments.studies
                p_values = family_of([scores[:number] for scores in methods], test)
                adjusted = np.array([holm(family) for family in p_values])
                found = np.mean((adjusted if gains else adjusted.min(axis=1, keepdims=True))[:, 0] < ALPHA)
                alone = f"{np.mean(p_values[:, 0] < ALPHA):.3f}/" if gains else ""
                shares.append(f"{test.__name__} {alone}{found:.3f}")
            print(words, name, ", ".join(shares), flush=True)


if __name__ == "__main__":
    main()
