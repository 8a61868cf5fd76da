"""Learning rate schedules by hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch

from dinov3.eval.segmentation.schedulers import WarmupOneCycleLR, WarmupPolyLR, build_scheduler
from dinov3.utils.errors import UsageError


def make_optimizer():
    head, backbone = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    return torch.optim.SGD([{"params": [head], "lr": 1.0}, {"params": [backbone], "lr": 0.1}])


def rates(scheduler, optimizer, steps):
    seen = [tuple(group["lr"] for group in optimizer.param_groups)]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        seen.append(tuple(group["lr"] for group in optimizer.param_groups))
    return seen


def test_one_cycle_rises_and_follows_a_cosine_over_the_whole_length():
    optimizer = make_optimizer()
    seen = [head for head, _ in rates(WarmupOneCycleLR(optimizer, 12, warmup_iters=4), optimizer, 14)]
    assert seen[:4] == pytest.approx([0, 1 / 4 * 11 / 12, 2 / 4 * 10 / 12, 3 / 4 * 9 / 12])
    assert seen[4:7] == pytest.approx([0.75, 0.5 * (1 + math.cos(math.pi * 5 / 12)), 0.5])
    assert seen[12:] == pytest.approx([0, 0, 0])


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [
        (750, 0.5 * (1 - 750 / 40_000)),  # 1e-6 of the peak more in Meta's, with its warmup_ratio
        (1500, 0.996535),
        (20_000, 0.5),
        (30_000, 0.146447),
        (39_999, 1.542126e-9),
    ],
)
def test_one_cycle_has_the_rates_of_metas_recipe(iteration, rate):
    assert WarmupOneCycleLR(make_optimizer(), 40_000, warmup_iters=1500).factor(iteration) == pytest.approx(rate, 1e-4)


def test_one_cycle_without_warm_up_equals_torch():
    ours, theirs = make_optimizer(), make_optimizer()
    reference = torch.optim.lr_scheduler.OneCycleLR(
        theirs, [1.0, 0.1], total_steps=12, pct_start=2 / 12, final_div_factor=4, cycle_momentum=False
    )
    schedule = WarmupOneCycleLR(ours, 10, warmup_iters=0, final_div_factor=4)
    expected = rates(reference, theirs, 11)[1:]  # without the rise, which torch cannot leave out
    for left, right in zip(rates(schedule, ours, 10), expected, strict=True):
        assert left == pytest.approx(right, abs=1e-12)


def test_a_training_made_longer_follows_the_longer_schedule():
    schedule = WarmupOneCycleLR(make_optimizer(), 10, warmup_iters=0)
    schedule.total_iter = 20
    assert schedule.factor(10) == pytest.approx(0.5)


def test_poly_falls_as_a_power_after_the_warm_up():
    optimizer = make_optimizer()
    scheduler = WarmupPolyLR(optimizer, 10, warmup_iters=2, warmup_start=0.2, power=0.9)
    seen = [head for head, _ in rates(scheduler, optimizer, 10)]
    assert seen[:3] == pytest.approx([0.2, 0.6, 1.0])
    assert seen[6] == pytest.approx(0.5**0.9)
    assert seen[10] == 0


def test_poly_without_warm_up_equals_torch():
    ours, theirs = make_optimizer(), make_optimizer()
    reference = torch.optim.lr_scheduler.PolynomialLR(theirs, total_iters=7, power=0.9)
    for left, right in zip(rates(WarmupPolyLR(ours, 7), ours, 9), rates(reference, theirs, 9), strict=True):
        assert left == pytest.approx(right, abs=1e-12)


@pytest.mark.parametrize("schedule", [WarmupOneCycleLR, WarmupPolyLR])
def test_ratio_of_the_groups_stays(schedule):
    optimizer = make_optimizer()
    for head, backbone in rates(schedule(optimizer, 9, warmup_iters=3), optimizer, 9):
        assert backbone == pytest.approx(0.1 * head)


@pytest.mark.parametrize("schedule", [WarmupOneCycleLR, WarmupPolyLR])
def test_schedule_resumes_where_it_stopped(schedule):
    optimizer = make_optimizer()
    expected = rates(schedule(optimizer, 9, warmup_iters=3), optimizer, 9)[5:]
    first = make_optimizer()
    stopped = schedule(first, 9, warmup_iters=3)
    rates(stopped, first, 5)
    second = make_optimizer()
    resumed = schedule(second, 9, warmup_iters=3)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(stopped.state_dict())
    for left, right in zip(rates(resumed, second, 4), expected, strict=True):
        assert left == pytest.approx(right)


def test_schedules_refuse_values_out_of_range():
    with pytest.raises(ValueError, match="warm-up of 5 of 5 iterations was given; give 0 to 4"):
        WarmupPolyLR(make_optimizer(), 5, warmup_iters=5)
    with pytest.raises(ValueError, match="warm-up from 2.0 of the rate"):
        WarmupPolyLR(make_optimizer(), 5, warmup_start=2.0)
    with pytest.raises(ValueError, match="final_div_factor of 0.5 was given; give at least 1"):
        WarmupOneCycleLR(make_optimizer(), 5, warmup_iters=1, final_div_factor=0.5)


@pytest.mark.parametrize(
    ("scheduler_type", "settings", "constructor"),
    [
        ("WarmupOneCycleLR", {"warmup_iters": 2, "final_div_factor": 20}, WarmupOneCycleLR),
        ("WarmupPolyLR", {"warmup_iters": 1, "power": 0.5}, WarmupPolyLR),
    ],
)
def test_a_schedule_is_built_from_its_name_and_settings(scheduler_type, settings, constructor):
    optimizer, reference = make_optimizer(), make_optimizer()
    built = build_scheduler(scheduler_type, optimizer, lr=1.0, total_iter=6, constructor_kwargs=settings)
    assert rates(built, optimizer, 6) == rates(constructor(reference, 6, **settings), reference, 6)


@pytest.mark.parametrize(
    ("scheduler_type", "settings", "message"),
    [
        ("StepLR", {}, "scheduler.type='StepLR' is not known; choose one of WarmupOneCycleLR, WarmupPolyLR"),
        ("WarmupPolyLR", {"speed": 1}, r"WarmupPolyLR refuses scheduler.constructor_kwargs=\{'speed': 1\}"),
        ("WarmupPolyLR", {"warmup_iters": 6}, "A warm-up of 6 of 6 iterations was given"),
    ],
)
def test_a_schedule_that_cannot_be_built_is_refused(scheduler_type, settings, message):
    with pytest.raises(UsageError, match=message):
        build_scheduler(scheduler_type, make_optimizer(), lr=1.0, total_iter=6, constructor_kwargs=settings)
