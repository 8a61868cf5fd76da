"""Losses, gradients and weights that are not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dinov3.utils.divergence import DivergenceGuard, mean_of_finite_losses, require_finite_parameters
from dinov3.utils.errors import DivergedError
from dinov3.utils.optimizer_step import update_weights


def test_guard_forgives_single_bad_steps() -> None:
    guard = DivergenceGuard(patience=2)
    assert [guard.accepts(loss) for loss in (1.0, math.nan, 1.0, math.inf, 1.0)] == [True, False, True, False, True]


def test_guard_stops_after_a_series() -> None:
    guard = DivergenceGuard(patience=3)
    assert not guard.accepts(1.0, math.inf)
    assert not guard.accepts(math.nan)
    with pytest.raises(DivergedError, match="3 steps in a row had a loss of nan"):
        guard.accepts(math.nan)


def test_late_steps_are_judged_with_the_next_one_in_order() -> None:
    guard, reads = DivergenceGuard(patience=3), []

    def later(loss: float, norm: float = 0.0) -> None:
        guard.accepts_later(lambda: reads.append(loss) or (loss, norm))

    later(1.0)
    assert reads == []
    later(math.nan)
    assert (reads, guard.bad_steps_in_a_row) == ([1.0], 0)
    later(2.0, math.inf)
    assert guard.bad_steps_in_a_row == 1
    guard.settle()
    guard.settle()
    assert (reads[2:], guard.bad_steps_in_a_row) == ([2.0], 2)
    later(math.inf)
    with pytest.raises(DivergedError, match="3 steps in a row had a loss of inf"):
        later(1.0)


def test_mean_loss_ignores_skipped_steps_but_needs_one_good() -> None:
    assert mean_of_finite_losses(np.array([1.0, np.nan, 3.0]), 4) == 2.0
    with pytest.raises(DivergedError, match="no step of epoch 4 had a finite loss"):
        mean_of_finite_losses(np.array([np.nan, np.inf]), 4)


def test_parameters_that_are_not_finite_are_named_and_buffers_may_be_anything() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    network.register_buffer("mask", torch.full((2,), -torch.inf))
    require_finite_parameters(network)
    with torch.no_grad():
        network[0].bias[1] = torch.nan
    with pytest.raises(DivergedError, match=r"parameter 0\.bias is not finite"):
        require_finite_parameters(network)


@pytest.mark.parametrize(("factor", "moves"), [(1.0, True), (math.nan, False), (math.inf, False)])
def test_update_is_taken_only_along_finite_gradients(factor: float, moves: bool) -> None:
    network = torch.nn.Linear(3, 1, bias=False)
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    loss = (network(torch.ones(1, 3)) * factor).sum()
    update = update_weights(loss, network, optimizer, None, clip_norm=12, guard=DivergenceGuard())
    assert update.loss.dtype == np.float32
    assert update.loss.ndim == 0
    assert (not torch.equal(network.weight, before)) is moves
    assert bool(network.weight.isfinite().all())


def test_an_infinite_loss_with_a_finite_gradient_is_noticed_by_every_process() -> None:
    network = torch.nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    loss = network(torch.ones(1, 3)).sum() + math.inf
    update = update_weights(loss, network, optimizer, None, clip_norm=12, guard=DivergenceGuard())
    assert update.loss == math.inf
    assert not network.weight.grad.isfinite().any()  # processes share gradients, not losses


def test_scaler_skips_steps_that_overflow_and_only_bad_losses_count() -> None:
    network = torch.nn.Linear(3, 1, bias=False)
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    guard = DivergenceGuard(patience=2)
    for expected_count, factor in ((0, 4.0), (1, math.nan)):  # scaled gradients overflow; the loss itself is bad
        optimizer.zero_grad()
        loss = (network(torch.ones(1, 3)) * factor).sum()
        update_weights(loss, network, optimizer, scaler, clip_norm=12, guard=guard)
        assert guard.bad_steps_in_a_row == expected_count
        assert torch.equal(network.weight, before)
    assert scaler.get_scale() < 2.0**127


@pytest.mark.parametrize(("clip_norm", "expected_step"), [(1.0, 1.0), (None, 50.0)])
def test_gradient_is_clipped_to_its_norm(clip_norm: float | None, expected_step: float) -> None:
    network = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    loss = network(torch.tensor([[30.0, 40.0]])).sum()  # gradient (30, 40), norm 50
    update = update_weights(loss, network, optimizer, None, clip_norm=clip_norm, guard=DivergenceGuard())
    assert update.gradient_norm == 50
    torch.testing.assert_close(network.weight.norm(), torch.tensor(expected_step), atol=1e-4, rtol=1e-4)
