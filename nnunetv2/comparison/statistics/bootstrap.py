"""Bootstrap over cases: resampled means and BCa intervals of a mean."""

from __future__ import annotations

import hashlib
from math import ceil, frexp

import numpy as np
from scipy.special import ndtr, ndtri

from nnunetv2.comparison.results import Interval

BLOCK = 2**22  # resampled cases held in memory at once: 32 MiB
MANTISSA_BITS = 52


def random_stream(seed: int, *names: str | None) -> np.random.Generator:
    """Create a generator that depends only on the seed and the names, not on machine or call order."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest, "little")))


def bootstrap_means(
    values: np.ndarray, num_resamples: int, stream: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Compute means over the cases and over bootstrap samples of the cases.

    All columns share the same samples. Values are rounded to a fixed-point grid on which every sum is exact, so equal
    columns have equal means in every sample, and results do not depend on the number of threads.

    Args:
        values: (N, M), finite, N > 0.

    Returns:
        (M,) means and (num_resamples, M) resampled means.
    """
    num_cases = len(values)
    largest_sum = max(float(np.abs(values).max()) * num_cases, 1.0)
    # Scaled sums stay below 2**52, where float64 represents every integer exactly.
    scale = 2.0 ** (MANTISSA_BITS - ceil(frexp(largest_sum)[1]))
    whole = np.rint(values * scale)
    sums = np.empty((num_resamples, values.shape[1]))
    rows = max(1, BLOCK // num_cases)
    for start in range(0, num_resamples, rows):
        stop = min(start + rows, num_resamples)
        sums[start:stop] = _times_drawn(num_cases, stop - start, stream) @ whole
    return whole.sum(axis=0) / (scale * num_cases), sums / (scale * num_cases)


def bca_intervals(
    values: np.ndarray, alpha: float, num_resamples: int, stream: np.random.Generator
) -> tuple[Interval, ...]:
    """Compute bias-corrected and accelerated bootstrap intervals of the mean over cases, covering 1 - alpha.

    The jackknife of a mean has a closed form, so the acceleration is a sixth of the skewness of the mean. Constant
    columns have an interval of zero width. Fewer than two cases give NaN.

    Args:
        values: (N, M); one interval per column.

    Source: Efron, "Better bootstrap confidence intervals", JASA 82 (1987), equations 2.3 and 7.3; for the jackknife
    Efron and Tibshirani, "An introduction to the bootstrap" (1993), equation 14.15.
    """
    num_cases, num_columns = values.shape
    if num_cases < 2:
        return (Interval(float("nan"), float("nan")),) * num_columns
    means, resampled = bootstrap_means(values, num_resamples, stream)
    resampled.sort(axis=0)
    below = np.array([_share_below(column, mean) for column, mean in zip(resampled.T, means, strict=True)])
    centred = values - values.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        acceleration = (centred**3).sum(axis=0) / (6 * (centred**2).sum(axis=0) ** 1.5)
        levels = [_bca_level(level, ndtri(below), acceleration) for level in (alpha / 2, 1 - alpha / 2)]
    lows, highs = (_quantiles(resampled, level) for level in levels)
    # Without variance the acceleration is 0/0, so constant columns are set explicitly.
    is_constant = values.min(axis=0) == values.max(axis=0)
    lows, highs = (np.where(is_constant, values[0], ends) for ends in (lows, highs))
    return tuple(Interval(float(low), float(high)) for low, high in zip(lows, highs, strict=True))


def _times_drawn(num_cases: int, num_resamples: int, stream: np.random.Generator) -> np.ndarray:
    """(num_resamples, num_cases) counts of each case in each sample."""
    drawn = stream.integers(0, num_cases, (num_resamples, num_cases))
    # Offsets per sample let one bincount count all samples at once.
    drawn += num_cases * np.arange(num_resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_cases)
    return counts.reshape(num_resamples, num_cases).astype(np.float64)


def _share_below(ascending: np.ndarray, mean: float) -> float:
    """Share of the resampled means below the mean; ties count half."""
    return float(np.searchsorted(ascending, mean, "left") + np.searchsorted(ascending, mean, "right")) / (
        2 * len(ascending)
    )


def _bca_level(level: float, bias: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
    """Corrected quantile level of an interval end; `level` itself where the correction is undefined."""
    shifted = bias + ndtri(level)
    corrected = ndtr(bias + shifted / (1 - acceleration * shifted))
    return np.where(np.isfinite(corrected), corrected, level)


def _quantiles(ascending: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Linearly interpolated quantile of each sorted column."""
    position = levels * (len(ascending) - 1)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, len(ascending) - 1)
    columns = np.arange(ascending.shape[1])
    low, high = ascending[lower, columns], ascending[upper, columns]
    return low + (high - low) * (position - lower)
