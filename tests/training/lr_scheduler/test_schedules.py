"""Learning-rate schedules by step."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.lr_scheduler.warmup import (
    CosineAnnealingLR_offset,
    Lin_incr_LRScheduler,
    Lin_incr_offset_LRScheduler,
    PolyLRScheduler_offset,
)


def _optimizer(*rates: float) -> SGD:
    return SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates], lr=1.0)


def _rates(optimizer: SGD) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def _course(scheduler, optimizer: SGD, steps: range) -> list[float]:
    course = []
    for step in steps:
        scheduler.step(step)
        course.append(_rates(optimizer)[0])
    return course


def test_poly_by_hand():
    optimizer = _optimizer(0.01)
    scheduler = PolyLRScheduler(optimizer, 0.01, 4)
    expected = [0.01, 0.01 * 0.75**0.9, 0.01 * 0.5**0.9, 0.01 * 0.25**0.9, 0]
    assert _course(scheduler, optimizer, range(5)) == pytest.approx(expected)
    assert scheduler.get_last_lr() == _rates(optimizer)


def test_poly_after_the_last_step_stays_at_zero():
    optimizer = _optimizer(0.01)
    assert _course(PolyLRScheduler(optimizer, 0.01, 4), optimizer, range(5, 7)) == [0, 0]


def test_poly_without_argument_counts_its_own_steps():
    optimizer = _optimizer(0.01)
    scheduler = PolyLRScheduler(optimizer, 0.01, 10)
    scheduler.step()
    assert _rates(optimizer) == pytest.approx([0.01 * 0.9**0.9])


def test_one_group_takes_the_schedulers_rate():
    optimizer = _optimizer(1.0)
    PolyLRScheduler(optimizer, 0.01, 10)
    assert _rates(optimizer) == [0.01]


def test_equal_groups_take_the_schedulers_rate():
    optimizer = _optimizer(1.0, 1.0)
    PolyLRScheduler(optimizer, 0.01, 10)
    assert _rates(optimizer) == [0.01, 0.01]


def test_different_groups_keep_their_ratio():
    optimizer = _optimizer(0.01, 0.001)
    scheduler = PolyLRScheduler(optimizer, 0.01, 10)
    assert _rates(optimizer) == [0.01, 0.001]
    scheduler.step(5)
    assert _rates(optimizer) == pytest.approx([0.01 * 0.5**0.9, 0.001 * 0.5**0.9])


def test_a_resumed_poly_gives_the_same_rates():
    straight, resumed = _optimizer(0.01, 0.001), _optimizer(0.01, 0.001)
    scheduler = PolyLRScheduler(straight, 0.01, 10)
    scheduler.step(6)
    resumed_scheduler = PolyLRScheduler(resumed, 0.01, 10)
    resumed.load_state_dict(straight.state_dict())
    resumed_scheduler.step(7)
    scheduler.step(7)
    assert _rates(resumed) == _rates(straight)


def test_linear_warm_up_reaches_the_maximum_at_its_last_step():
    optimizer = _optimizer(1.0)
    scheduler = Lin_incr_LRScheduler(optimizer, 0.4, 4)
    assert _course(scheduler, optimizer, range(4)) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_linear_warm_up_with_offset():
    optimizer = _optimizer(1.0)
    scheduler = Lin_incr_offset_LRScheduler(optimizer, 0.4, 4, start_step=10)
    assert _course(scheduler, optimizer, range(10, 14)) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_poly_with_offset_waits_and_then_decays():
    optimizer = _optimizer(1.0)
    scheduler = PolyLRScheduler_offset(optimizer, 0.1, max_steps=12, start_step=2)
    course = _course(scheduler, optimizer, range(0, 13, 2))
    assert course[:2] == [0.1, 0.1]
    assert course[2:] == pytest.approx([0.1 * (1 - step / 10) ** 0.9 for step in (2, 4, 6, 8, 10)])


def test_cosine_with_offset_falls_from_full_to_minimum():
    optimizer = _optimizer(0.1)
    scheduler = CosineAnnealingLR_offset(optimizer, T_max=14, eta_min=0.02, offset=4)
    assert _course(scheduler, optimizer, range(4, 15, 5)) == pytest.approx([0.1, 0.06, 0.02])


def test_cosine_without_argument_goes_on_by_one():
    optimizer = _optimizer(0.1)
    scheduler = CosineAnnealingLR_offset(optimizer, T_max=2)
    scheduler.step()
    assert _rates(optimizer) == pytest.approx([0.05])
