"""Loggers of users and of other programs: what they are told, and that a training outlives them."""

from __future__ import annotations

import importlib.util
import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.training.logging import nnunet_logger
from nnunetv2.training.logging.external_loggers import MOST_FAILURES, FailureGuard
from nnunetv2.training.logging.nnunet_logger import MetaLogger


@pytest.fixture(autouse=True)
def _no_external_loggers(monkeypatch):
    for name in ("nnUNet_wandb_enabled", "nnUNet_tensorboard_enabled"):
        monkeypatch.delenv(name, raising=False)


class Recorder:
    def __init__(self, failures: int = 0) -> None:
        self.failures, self.calls = failures, []

    def log(self, *args: Any) -> None:
        self.calls.append(args)
        if len(self.calls) <= self.failures:
            raise ConnectionError("the network\nis down")

    log_summary = update_config = log


def test_loggers_that_users_append_are_told_everything(tmp_path):
    logger = MetaLogger(tmp_path, False)
    logger.loggers.append(mine := Recorder())
    logger.update_config({"fold": 0})
    logger.log("dice_per_class_or_region", [0.25, 0.75], 0)
    logger.log("mean_fg_dice", 0.5, 0)
    logger.log_summary("final", 0.9)
    assert mine.calls == [
        ({"fold": 0},),
        ("dice_per_class_or_region/class_1", 0.25, 0),
        ("dice_per_class_or_region/class_2", 0.75, 0),
        ("mean_fg_dice", 0.5, 0),
        ("ema_fg_dice", 0.5, 0),
        ("final", 0.9),
    ]


def test_a_failing_logger_is_one_warning_and_the_others_go_on(tmp_path, caplog):
    logger = MetaLogger(tmp_path, False)
    logger.loggers += [Recorder(failures=2), steady := Recorder()]
    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            logger.log("lrs", 0.1, epoch)
    assert caplog.messages == [
        "Recorder failed (ConnectionError: the network is down); the training goes on; its later failures are not told"
    ]
    assert len(logger.loggers[0].calls) == len(steady.calls) == 3
    assert logger.get_value("lrs", None) == [0.1, 0.1, 0.1]


def test_a_logger_that_never_works_is_given_up():
    guard, broken, flaky = FailureGuard(), Recorder(failures=10**6), Recorder()
    for number in range(3 * MOST_FAILURES):
        guard.call(broken, "log", number)
        flaky.failures = 10**6 if number % 3 else 0  # two of three calls fail
        guard.call(flaky, "log", number)
    assert len(broken.calls) == MOST_FAILURES
    assert len(flaky.calls) == 3 * MOST_FAILURES


def test_a_logger_that_cannot_be_made_is_one_warning(tmp_path, monkeypatch, caplog):
    def refuse(**_: Any) -> None:
        raise RuntimeError("no such host")

    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with caplog.at_level(logging.WARNING):
        logger = MetaLogger(tmp_path, False)
        logger.log("lrs", 0.1, 0)
    assert logger.loggers == []
    assert caplog.messages == [
        "WandbLogger could not be started (RuntimeError: no such host); the training goes on without it"
    ]


def test_of_several_processes_the_first_has_external_loggers(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(nnunet_logger, "rank_and_world_size", lambda: (1, 2))
    assert MetaLogger(tmp_path, False).loggers == []
    monkeypatch.setattr(nnunet_logger, "rank_and_world_size", lambda: (0, 2))
    with pytest.raises(UsageError, match="pip install wandb"):
        MetaLogger(tmp_path, False)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs the extra wandb")
def test_wandb_itself_keeps_an_offline_run(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setenv("nnUNet_wandb_mode", "offline")
    logger = MetaLogger(tmp_path, False)
    logger.update_config({"fold": 0})
    logger.log("lrs", 0.1, 0)
    logger.log_summary("final", 0.9)
    run = logger.loggers[0].run
    assert run.config["fold"] == 0
    assert run.summary["final"] == 0.9
    run.finish()
    assert [path.stem for path in (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")] == [f"run-{run.id}"]
    resumed = MetaLogger(tmp_path, True).loggers[0].run
    assert resumed.id == run.id
    resumed.finish()
