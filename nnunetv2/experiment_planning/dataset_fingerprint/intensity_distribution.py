"""A multiset of intensities, stored as distinct values with counts to save memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MAX_DISTINCT_VALUES = 1 << 21  # exact up to this number; about 25 MB. Integer images have a few thousand
ROUNDED_MANTISSA_BITS = 16  # relative rounding error at most 2**-17 = 7.6e-6


@dataclass(frozen=True)
class Moments:
    """Count, mean, sum of squared deviations from the mean, and range of a multiset of numbers."""

    count: int = 0
    mean: float = 0.0
    squared_deviations: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray) -> Moments:
        values = values.astype(np.float64)
        count = int(counts.sum())
        mean = float(np.dot(values, counts)) / count
        squared_deviations = float(np.dot((values - mean) ** 2, counts))
        return cls(count, mean, squared_deviations, float(values.min()), float(values.max()))

    def combined(self, other: Moments) -> Moments:
        """Returns the moments of both multisets together.

        Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
        """
        count = self.count + other.count
        if count == 0:
            return self
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + shift * other.count / count,
            self.squared_deviations + other.squared_deviations + shift**2 * self.count * other.count / count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    @property
    def standard_deviation(self) -> float:
        return math.sqrt(self.squared_deviations / self.count)


class IntensityDistribution:
    """Distinct values with counts; extended by `add` and `merge`.

    Mean, standard deviation, minimum and maximum are exact. Percentiles are exact as well while
    there are at most `max_distinct` distinct values. Beyond that, values are rounded to 16 bits of mantissa, which
    leaves at most 65 536 values in each power of two and moves a percentile by a factor of at most 1 +- 7.6e-6.
    """

    def __init__(self, max_distinct: int = MAX_DISTINCT_VALUES) -> None:
        self.max_distinct = max_distinct
        self.moments = Moments()
        self.is_rounded = False
        self._values = np.empty(0, dtype=np.float32)
        self._counts = np.empty(0, dtype=np.int64)
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, values: np.ndarray, counts: np.ndarray) -> None:
        """Adds `counts[i]` occurrences of `values[i]`; values may repeat, counts may be zero."""
        for start in range(0, len(values), self.max_distinct):
            part = slice(start, start + self.max_distinct)
            occurring = counts[part] > 0
            if occurring.any():
                part_values, part_counts = values[part][occurring], counts[part][occurring].astype(np.int64)
                self.moments = self.moments.combined(Moments.of(part_values, part_counts))
                self._absorb(*_distinct(part_values, part_counts))

    def merge(self, other: IntensityDistribution) -> None:
        """Adds all values of another distribution."""
        self.moments = self.moments.combined(other.moments)
        self.is_rounded |= other.is_rounded
        self._absorb(*other.distinct())

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the distinct values in ascending order and the number of occurrences of each."""
        self._compact()
        return self._values, self._counts

    def percentiles(self, percentages: np.ndarray) -> np.ndarray:
        """Computes percentiles as `np.percentile` of all occurrences: linear interpolation between order statistics."""
        values, counts = self.distinct()
        last_position = np.cumsum(counts) - 1
        position = (self.moments.count - 1) * (np.asarray(percentages, dtype=np.float64) / 100)
        below = np.floor(position)
        above = np.minimum(below + 1, self.moments.count - 1)
        low, high = (values[np.searchsorted(last_position, rank)].astype(np.float64) for rank in (below, above))
        return low + (high - low) * (position - below)

    def statistics(self) -> dict[str, float]:
        """Returns the entry of one channel in `dataset_fingerprint.json`.

        Raises:
            ValueError: the distribution is empty.
        """
        if self.moments.count == 0:
            raise ValueError("statistics of no values are not defined")
        percentile_00_5, median, percentile_99_5 = self.percentiles(np.array((0.5, 50.0, 99.5)))
        return {
            "max": self.moments.maximum,
            "mean": self.moments.mean,
            "median": float(median),
            "min": self.moments.minimum,
            "percentile_00_5": float(percentile_00_5),
            "percentile_99_5": float(percentile_99_5),
            "std": self.moments.standard_deviation,
        }

    def _absorb(self, values: np.ndarray, counts: np.ndarray) -> None:
        # Additions are buffered: sorting everything for each one would take time quadratic in the number of cases.
        self._pending.append((values, counts))
        if sum(len(pending) for pending, _ in self._pending) > self.max_distinct:
            self._compact()

    def _compact(self) -> None:
        if not self._pending:
            return
        parts = [(self._values, self._counts), *self._pending] if len(self._values) else self._pending
        self._pending = []
        values = np.concatenate([part for part, _ in parts])
        counts = np.concatenate([part for _, part in parts])
        if not self.is_rounded:
            values, counts = _distinct(values, counts)
            self.is_rounded = len(values) > self.max_distinct
        if self.is_rounded:
            values, counts = _distinct(_rounded(values), counts)
        self._values, self._counts = values, counts


def _distinct(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts values and sums the counts of equal ones."""
    order = np.argsort(values)
    values, counts = values[order], counts[order]
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    return values[starts], np.add.reduceat(counts, starts)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Rounds to `ROUNDED_MANTISSA_BITS` binary digits after the leading one; preserves the order of values."""
    fraction, exponent = np.frexp(values)  # 0.5 <= |fraction| < 1
    scale = 2.0 ** (ROUNDED_MANTISSA_BITS + 1)
    return np.ldexp(np.rint(fraction * scale) / scale, exponent).astype(values.dtype)
