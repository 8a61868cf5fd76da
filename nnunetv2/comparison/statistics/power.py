"""Power of the test of methods: which differences a planned number of cases and trainings shows."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, gammaincinv, ndtr, stdtrit

from nnunetv2.comparison.statistics.method_test import difference_of_parts, variance_parts

_NUM_DRAWS = 2048  # quasi-random; power of two
MOST_CASES = 100_000  # a larger number counts as out of reach
_LEAST_CASES = 3


@dataclass(frozen=True)
class VarianceParts:
    """Variances of the scores of two methods, as expected of a further study."""

    trainings: float
    """between the trainings of a method, of their mean over all cases of the kind"""
    interaction: float
    """between cases, of the difference of two methods that are trained infinitely often"""
    residual: float
    """of a single score, left by method, case and training"""
    num_free: int
    """degrees of freedom of the variance between trainings"""

    def with_upper_trainings(self, coverage: float) -> VarianceParts:
        """The same with the variance between trainings at the upper end of its one-sided interval."""
        factor = self.num_free / chdtri(self.num_free, coverage)
        return VarianceParts(self.trainings * factor, self.interaction, self.residual, self.num_free)


def parts_of_pilot(methods: Sequence[np.ndarray]) -> VarianceParts:
    """Estimate the variances from a pilot.

    Negative estimates become 0, as in the test itself.

    Args:
        methods: (S, N) scores of each method on the same N cases; at least two methods, one of which has S > 1.
    """
    num_cases = methods[0].shape[1]
    repeated = [scores for scores in methods if len(scores) > 1]
    weights = np.array([len(scores) - 1 for scores in repeated])
    found = [variance_parts(scores) for scores in repeated]  # of means: divided by S, and by S N
    of_trainings = [float(part) * len(scores) for (part, _), scores in zip(found, repeated, strict=True)]
    residuals = [float(part) * scores.size for (_, part), scores in zip(found, repeated, strict=True)]
    residual = float(np.average(residuals, weights=weights))
    observed = float(np.average(of_trainings, weights=weights))
    interactions = []
    for number, first in enumerate(methods):
        for second in methods[:number]:
            differences = (first.mean(axis=0) - second.mean(axis=0)).var(ddof=1)
            interactions.append(differences - residual / len(first) - residual / len(second))
    return VarianceParts(
        trainings=max(observed - residual / num_cases, 0.0),
        interaction=max(float(np.mean(interactions)), 0.0),
        residual=residual,
        num_free=int(weights.sum()),
    )


def power(parts: VarianceParts, num_cases: int, num_trainings: int, difference: float, alpha: float) -> float:
    """Probability that `method_difference` shows a true difference, in its direction.

    Under normal scores, all mean squares of the test are independent multiples of chi-squared variables, and
    independent of the estimated difference. So the variance and the degrees of freedom of the test are drawn from
    their distribution (quasi-random, always the same), and the probability is computed for each.

    Args:
        num_cases, num_trainings: of each method; at least 2.
        difference: of the means, above 0.
        alpha: two-sided level of the single pair, after the adjustment for the number of pairs.
    """
    variance, degrees_of_freedom = _drawn_tests(parts, num_cases, num_trainings)
    spread = np.sqrt(_true_variance(parts, num_cases, num_trainings))
    needed = stdtrit(degrees_of_freedom, 1 - alpha / 2) * np.sqrt(variance)
    if spread == 0:
        return float(difference > 0)
    return float(np.mean(ndtr((difference - needed) / spread)))


def _true_variance(parts: VarianceParts, num_cases: int, num_trainings: int) -> float:
    """Of the difference of the means of two methods."""
    of_trainings = (parts.trainings + parts.residual / num_cases) / num_trainings
    return 2 * of_trainings + parts.interaction / num_cases


def _drawn_tests(parts: VarianceParts, num_cases: int, num_trainings: int) -> tuple[np.ndarray, np.ndarray]:
    """Variance and degrees of freedom of the test in studies with these parts, each (D,)."""
    free = (num_trainings - 1,) * 2 + ((num_trainings - 1) * (num_cases - 1),) * 2 + (num_cases - 1,)
    means = [2 * gammaincinv(each / 2, uniform) / each for each, uniform in zip(free, _uniforms(), strict=True)]
    of_trainings = (parts.trainings + parts.residual / num_cases) / num_trainings
    rest = parts.residual / (num_cases * num_trainings)
    of_cases = (parts.interaction + 2 * parts.residual / num_trainings) / num_cases
    test = difference_of_parts(
        np.zeros(_NUM_DRAWS),
        (of_trainings * means[0], of_trainings * means[1]),
        (rest * means[2], rest * means[3]),
        of_cases * means[4],
        num_cases,
        (num_trainings, num_trainings),
    )
    return test.variance, test.degrees_of_freedom


@functools.cache
def _uniforms() -> np.ndarray:
    """(5, D) quasi-random numbers between 0 and 1."""
    from scipy.stats import qmc  # takes a second to import

    return qmc.Sobol(5, scramble=True, rng=np.random.default_rng(0)).random(_NUM_DRAWS).T


def smallest_difference(parts: VarianceParts, num_cases: int, num_trainings: int, target: float, alpha: float) -> float:
    """Smallest true difference that is shown with the power `target`."""
    step = np.sqrt(_true_variance(parts, num_cases, num_trainings))
    if step == 0:
        return 0.0
    low, high = 0.0, float(step)
    while power(parts, num_cases, num_trainings, high, alpha) < target:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        if power(parts, num_cases, num_trainings, middle, alpha) < target:
            low = middle
        else:
            high = middle
    return high


def num_cases_for(
    parts: VarianceParts, num_trainings: int, difference: float, target: float, alpha: float
) -> int | None:
    """Smallest number of cases that shows a difference with the power `target`; None if MOST_CASES do not."""

    def suffices(num_cases: int) -> bool:
        return power(parts, num_cases, num_trainings, difference, alpha) >= target

    if not suffices(MOST_CASES):
        return None
    low, high = _LEAST_CASES - 1, MOST_CASES
    while high - low > 1:
        middle = int(np.sqrt(low * high)) if high > 2 * low else (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        if suffices(middle):
            high = middle
        else:
            low = middle
    return high
