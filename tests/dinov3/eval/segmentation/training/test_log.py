"""Numbers that a training reports."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import torch

from dinov3.eval.segmentation.training import log as training_log
from dinov3.eval.segmentation.training.log import LossAverages, TrainingLog


def losses_of(total: float, part: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(total), "loss_part": torch.tensor(part)}


def test_averages_leave_out_steps_that_were_not_finite_and_start_anew() -> None:
    averages = LossAverages()
    assert averages.pop() == {}
    for losses in (losses_of(1.0, 0.5), losses_of(math.nan, 7.0), losses_of(3.0, 1.5), losses_of(math.inf, math.inf)):
        averages.add(losses)
    assert averages.pop() == {"loss": 2.0, "loss_part": 1.0}
    averages.add(losses_of(math.nan, 1.0))
    assert math.isnan(averages.pop()["loss_part"])


def test_averages_keep_no_graph() -> None:
    weight = torch.ones((), requires_grad=True)
    averages = LossAverages()
    averages.add({"loss": weight * 2})
    assert not averages._sums.requires_grad


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds; to be moved on by tests."""
    now = [100.0]
    monkeypatch.setattr(training_log.time, "monotonic", lambda: now[0])
    return now


def test_a_line_tells_the_time_of_steps_without_pauses(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log = TrainingLog(tmp_path / "log.jsonl", total_iter=100, iteration=10)
    clock[0] += 5
    with log.paused():
        clock[0] += 1000
    log.step(20, {"loss": 1.25, "loss_class_0": 3.0}, {"head": 0.001, "backbone": 0.0001}, math.inf)
    assert caplog.messages == ["[20/100] loss 1.2500 lr 0.001 gradient norm inf, 0.500 s per iteration, 0:00:40 left"]
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {
        "iteration": 20,
        "losses": {"loss": 1.25, "loss_class_0": 3.0},
        "lr": {"head": 0.001, "backbone": 0.0001},
        "gradient_norm": None,
        "seconds_per_iteration": 0.5,
        "seconds_left": 40.0,
    }


def test_a_process_without_a_file_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = TrainingLog(None, total_iter=2)
    log.step(1, {"loss": 1.0}, {"head": 0.1}, 1.0)
    log.evaluation(1, {"mIoU": 1.0})
    assert caplog.messages == []
