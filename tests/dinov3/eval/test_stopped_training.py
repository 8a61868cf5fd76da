"""dinov3's trainer on a signal, and with workers that die: the state is saved, and resumed exactly."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from dinov3.eval.segmentation.data.batches import restarted_with_workers
from dinov3.eval.segmentation.train import train_step
from dinov3.eval.segmentation.training import loop
from dinov3.utils.errors import PreemptedError, ProcessDiedError
from dinov3.utils.processes.stop_signals import ended_by_signals
from dinov3.utils.tensor_files import read_tensors
from tests.dinov3.toy_training import toy_config, train_toy, write_dataset

WORDS = ("eval.eval_interval=2", "checkpoint_interval=100")


def _log(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "training_log.jsonl").read_text().splitlines())
    return [{key: line[key] for key in line if not key.startswith("seconds")} for line in lines]


@pytest.mark.parametrize("where", ["step", "evaluation"])
def test_a_signal_saves_the_iteration_and_a_resumed_training_is_the_same(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dataset(tmp_path / "data")
    whole, folder = tmp_path / "whole", tmp_path / "stopped"
    best = train_toy(toy_config(root, whole, "linear", *WORDS), log_interval=1)

    def step_with_signal(*args: Any, **kwargs: Any) -> Any:
        if where == "step" and args[9] == 2:  # the third iteration
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*args, **kwargs)

    evaluate = loop.evaluate_on_validation_set
    calls = []

    def evaluate_with_signal(*args: Any) -> Any:
        calls.append(args)
        if where == "evaluation" and len(calls) == 2:  # after the fourth iteration
            os.kill(os.getpid(), signal.SIGUSR1)
        return evaluate(*args)

    with monkeypatch.context() as signals, pytest.raises(PreemptedError, match=r"Stopped by SIG.* resume=true"):
        signals.setattr(loop, "evaluate_on_validation_set", evaluate_with_signal)
        with ended_by_signals("never"):
            train_toy(toy_config(root, folder, "linear", *WORDS), train_step=step_with_signal, log_interval=1)
    assert read_tensors(folder / "checkpoint_latest.pth")["iteration"] == {"step": 3, "evaluation": 4}[where]
    resumed = train_toy(toy_config(root, folder, "linear", *WORDS, "resume=true"), log_interval=1)
    assert str(resumed) == str(best)  # nan is not equal to itself
    one, other = (read_tensors(path / "model_final.pth")["model"] for path in (whole, folder))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert _log(folder) == _log(whole)


def test_the_loader_of_a_dead_worker_is_replaced_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    def numbers_from(first: int) -> Any:
        yield first
        yield first + 1
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    seen = []
    died = pytest.raises(ProcessDiedError, match="pid 7.*signal: Killed, the last of 4")
    with caplog.at_level(logging.WARNING), died:
        for number in restarted_with_workers(numbers_from):
            seen.append(number)
    assert seen == list(range(8))
    assert "3 of 3 restarts" in caplog.text

    def broken(first: int) -> Any:
        raise RuntimeError("shapes do not match")
        yield

    with pytest.raises(RuntimeError, match="shapes"):
        list(restarted_with_workers(broken))
