"""The line on the terminal: what it says, and that it stays out of the way."""

from __future__ import annotations

import io
import itertools
import sys
import time
from typing import Any

import numpy as np
import pytest

from nnunetv2.training.loop import live_progress
from nnunetv2.training.loop.live_progress import Outlook, run_steps

FIRST_EPOCH = Outlook(
    seconds_before=0.0, num_steps_after=5, seconds_after=None, num_later_epochs=9, seconds_per_epoch=None
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use_terminal(monkeypatch) -> Terminal:
    """Called by tests themselves, because pytest puts its own stream in the place before each."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(live_progress, "SECONDS_BETWEEN_UPDATES", 0.0)
    return sys.stderr


def loss_of(batch: int) -> dict[str, Any]:
    return {"loss": np.float32(batch)}


@pytest.mark.parametrize("outlook", [None, FIRST_EPOCH])
def test_steps_are_made_one_after_the_other(monkeypatch, outlook):
    terminal = use_terminal(monkeypatch)
    batches = iter(range(100))
    outputs = run_steps(loss_of, batches, 4, "Epoch 0 training", outlook)
    assert [int(output["loss"]) for output in outputs] == [0, 1, 2, 3]
    assert next(batches) == 4
    assert bool(terminal.getvalue()) is (outlook is not None)


def test_the_line_says_how_far_it_is(monkeypatch):
    terminal = use_terminal(monkeypatch)
    run_steps(loss_of, itertools.count(), 4, "Epoch 7 training", FIRST_EPOCH)
    shown = terminal.getvalue().split("\r")
    assert any("Epoch 7 training  75%" in line and "loss 1.0000, epoch 0 s left" in line for line in shown)
    assert shown[-2].strip() == ""  # it is wiped away at the end


@pytest.mark.parametrize("output", [None, {}, {"loss": "high"}, {"loss": np.zeros(2)}])
def test_steps_may_return_anything(monkeypatch, output):
    terminal = use_terminal(monkeypatch)
    assert run_steps(lambda _: output, itertools.count(), 3, "Epoch 0", FIRST_EPOCH) == [output] * 3
    assert "epoch 0 s left" in terminal.getvalue()
    assert "loss" not in terminal.getvalue()


def test_an_error_in_a_step_is_passed_on(monkeypatch):
    use_terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        run_steps(lambda batch: 1 // batch, iter([1, 0]), 2, "Epoch 0", FIRST_EPOCH)


def test_the_variable_of_tqdm_turns_it_off(monkeypatch):
    terminal = use_terminal(monkeypatch)
    monkeypatch.setattr(live_progress, "tqdm", lambda **settings: _silenced(settings))
    run_steps(loss_of, itertools.count(), 3, "Epoch 0", FIRST_EPOCH)
    assert terminal.getvalue() == ""


def _silenced(settings: dict[str, Any]) -> Any:
    from tqdm import tqdm

    assert "disable" not in settings  # given by name, it would count more than TQDM_DISABLE
    return tqdm(**settings, disable=True)


def test_it_is_wanted_on_a_terminal_alone(monkeypatch):
    use_terminal(monkeypatch)
    assert live_progress.is_wanted()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not live_progress.is_wanted()


def test_in_the_first_epoch_time_left_follows_from_its_steps():
    # 20 of 100 steps took 10 s: 40 s for the rest, 2.5 s for the five afterwards, and nine times 52.5 s
    assert FIRST_EPOCH.seconds_left(10.0, 20, 100) == pytest.approx((42.5, 42.5 + 9 * 52.5))


def test_later_time_left_follows_from_the_epochs_before():
    training = Outlook(0.0, num_steps_after=5, seconds_after=7.0, num_later_epochs=2, seconds_per_epoch=60.0)
    assert training.seconds_left(10.0, 20, 100) == pytest.approx((47.0, 167.0))
    validation = Outlook(50.0, num_steps_after=0, seconds_after=0.0, num_later_epochs=1, seconds_per_epoch=None)
    assert validation.seconds_left(1.0, 1, 5) == pytest.approx((4.0, 4.0 + 55.0))


def test_a_step_costs_less_than_fifty_microseconds(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    output, num_steps = loss_of(1), 20_000

    def seconds(outlook: Outlook | None) -> float:
        started = time.process_time()
        run_steps(lambda _: output, itertools.repeat(0), num_steps, "Epoch 0", outlook)
        return time.process_time() - started

    assert (seconds(FIRST_EPOCH) - seconds(None)) / num_steps < 50e-6
