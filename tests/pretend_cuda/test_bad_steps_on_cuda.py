"""Steps whose loss or gradient is not finite are skipped on the device, and counted without waiting for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.pretend_cuda import updates
from tests.pretend_cuda.updates import Updates

NAN, INF = math.nan, math.inf
FACTORS = (NAN, 1.0, INF, 0.5, 1.0)


@pytest.fixture
def update(cuda_process: ProcessPoolExecutor) -> Callable[..., Updates]:
    return lambda *args, **options: cuda_process.submit(updates.update, *args, **options).result()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Adam"])
def test_bad_steps_leave_weights_and_moments(optimizer: str, scaled: bool, update: Callable[..., Updates]) -> None:
    mixed = update(optimizer, FACTORS, scaled=scaled)
    assert mixed.moved == [False, True, False, True, True]
    assert mixed.waits == []
    assert mixed.warnings == 2
    assert mixed.states[2] == mixed.states[1]
    good = update(optimizer, [factor for factor in FACTORS if math.isfinite(factor)], scaled=scaled)
    assert mixed.states[1:2] + mixed.states[3:] == good.states
    assert [loss for loss in mixed.losses if math.isfinite(loss)] == good.losses
    assert [math.isfinite(loss) for loss in mixed.losses] == mixed.moved


def test_ten_bad_steps_end_the_training_one_step_later(update: Callable[..., Updates]) -> None:
    diverged = update("AdamW", [1.0] + [NAN] * 20)
    assert diverged.error.startswith("Training diverged: 10 steps in a row had a loss of nan")
    assert diverged.moved == [True] + [False] * 10  # the eleventh bad one reads the tenth, and is not returned
    assert diverged.warnings == 9


def test_the_last_step_is_judged_at_the_end(update: Callable[..., Updates]) -> None:
    diverged = update("SGD", [NAN] * 10)
    assert len(diverged.moved) == 10
    assert diverged.error.startswith("Training diverged: 10 steps in a row")


def test_other_optimisers_are_asked_by_the_host_as_before(update: Callable[..., Updates]) -> None:
    plain = update("SGD", FACTORS, fused=False)
    assert plain.moved == [False, True, False, True, True]
    assert len(plain.waits) == len(FACTORS)
    assert plain.warnings == 2
    assert plain.states[-1] == pytest.approx(update("SGD", FACTORS).states[-1])
