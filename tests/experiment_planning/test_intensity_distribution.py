from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.experiment_planning.dataset_fingerprint.intensity_distribution import (
    ROUNDED_MANTISSA_BITS,
    IntensityDistribution,
)

PERCENTAGES = np.array((0.5, 50.0, 99.5))


def make(values, counts, **kwargs) -> IntensityDistribution:
    distribution = IntensityDistribution(**kwargs)
    distribution.add(np.asarray(values, dtype=np.float32), np.asarray(counts))
    return distribution


def random_parts(seed: int, scale: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values with repetitions and counts with zeros, as several cases would give them."""
    random_state = np.random.RandomState(seed)
    return [
        ((random_state.normal(3, scale, size).round(1)).astype(np.float32), random_state.randint(0, 6, size))
        for size in (1, 7, 250, 40)
    ]


def test_statistics_by_hand():
    statistics = make([4, 1, 2, 9], [1, 2, 1, 0]).statistics()  # 1 1 2 4
    expected = {"max": 4.0, "mean": 2.0, "median": 1.5, "min": 1.0, "std": np.sqrt(1.5)}
    assert statistics == pytest.approx({**expected, "percentile_00_5": 1.0, "percentile_99_5": 3.97})


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("max_distinct", [1 << 21, 100])
def test_statistics_equal_numpys_on_all_values(seed, max_distinct):
    parts = random_parts(seed, scale=10.0**seed / 1e3)
    total = IntensityDistribution(max_distinct)
    for values, counts in parts:
        total.merge(make(values, counts, max_distinct=max_distinct))
    everything = np.concatenate([np.repeat(values, counts) for values, counts in parts]).astype(np.float64)
    np.testing.assert_allclose(total.percentiles(PERCENTAGES), np.percentile(everything, PERCENTAGES), rtol=1e-5)
    assert total.moments.count == len(everything)
    assert total.moments.mean == pytest.approx(everything.mean(), rel=1e-12)
    assert total.moments.standard_deviation == pytest.approx(everything.std(), rel=1e-12)
    assert (total.moments.minimum, total.moments.maximum) == (everything.min(), everything.max())


def test_percentiles_are_exact_while_values_are_few():
    values, counts = random_parts(0, 50)[2]
    distribution = make(values, counts)
    everything = np.repeat(values, counts)
    assert not distribution.is_rounded
    np.testing.assert_array_equal(distribution.percentiles(PERCENTAGES), np.percentile(everything, PERCENTAGES))


def test_too_many_values_are_rounded_within_the_promised_error():
    values = np.random.RandomState(0).uniform(-1, 1, 400_000).astype(np.float32)
    total = IntensityDistribution(max_distinct=300_000)
    for part in np.array_split(values, 5):
        total.merge(make(part, np.ones(len(part), dtype=int), max_distinct=300_000))
    kept, counts = total.distinct()
    assert total.is_rounded
    assert len(kept) <= 24 * 2**ROUNDED_MANTISSA_BITS and counts.sum() == len(values)
    error = np.abs(np.repeat(kept, counts).astype(float) - np.sort(values)) / np.abs(np.sort(values))
    assert error.max() <= 2.0 ** -(ROUNDED_MANTISSA_BITS + 1)


def test_order_of_parts_does_not_matter():
    parts = random_parts(3, 5)
    forwards, backwards = IntensityDistribution(), IntensityDistribution()
    for values, counts in parts:
        forwards.add(values, counts)
    for values, counts in reversed(parts):
        backwards.add(values, counts)
    assert forwards.statistics() == pytest.approx(backwards.statistics(), rel=1e-12)
    for one, other in zip(forwards.distinct(), backwards.distinct(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_drawn_adds_nothing():
    distribution = make([1, 2], [0, 0])
    assert distribution.moments.count == 0
    with pytest.raises(ValueError, match="statistics of no values"):
        distribution.statistics()
