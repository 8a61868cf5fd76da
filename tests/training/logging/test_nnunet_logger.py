"""The training history, its moving average, its picture and its way to Weights & Biases."""

from __future__ import annotations

import logging
import math
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnunetv2.errors import UsageError
from nnunetv2.training.logging.local_logger import HISTORY_KEYS
from nnunetv2.training.logging.nnunet_logger import LocalLogger, MetaLogger, get_cluster_job_id, nnUNetLogger
from nnunetv2.training.logging.progress_plot import draw_progress


@pytest.fixture(autouse=True)
def _no_wandb(monkeypatch):
    monkeypatch.delenv("nnUNet_wandb_enabled", raising=False)


def _logger_of_epochs(folder, dice: list[float]) -> MetaLogger:
    logger = MetaLogger(folder, resume=False)
    for epoch, value in enumerate(dice):
        for key in ("train_losses", "val_losses", "lrs", "epoch_start_timestamps", "epoch_end_timestamps"):
            logger.log(key, float(epoch), epoch)
        logger.log("dice_per_class_or_region", [value, value], epoch)
        logger.log("mean_fg_dice", value, epoch)
    return logger


def test_moving_average_follows_the_dice(tmp_path):
    logger = _logger_of_epochs(tmp_path, [0.5, 0.7, 0.1])
    assert logger.get_value("ema_fg_dice", None) == pytest.approx([0.5, 0.52, 0.478])
    assert logger.get_value("mean_fg_dice", -1) == 0.1


def test_moving_average_outlives_epochs_without_foreground(tmp_path):
    logger = _logger_of_epochs(tmp_path, [math.nan, 0.5, math.nan, 0.7])
    assert math.isnan(logger.get_value("ema_fg_dice", 0))
    assert logger.get_value("ema_fg_dice", None)[1:] == pytest.approx([0.5, 0.5, 0.52])


def test_history_has_upstreams_keys(tmp_path):
    assert set(MetaLogger(tmp_path, False).get_checkpoint()) == {
        "mean_fg_dice",
        "ema_fg_dice",
        "dice_per_class_or_region",
        "train_losses",
        "val_losses",
        "lrs",
        "epoch_start_timestamps",
        "epoch_end_timestamps",
    }


def test_checkpoint_holds_plain_numbers():
    logger = LocalLogger()
    logger.log("mean_fg_dice", np.float32(0.5), 0)
    logger.log("dice_per_class_or_region", [np.float64(0.25), np.float32(0.75)], 0)
    checkpoint = logger.get_checkpoint()
    assert type(checkpoint["mean_fg_dice"][0]) is float
    assert [type(value) for value in checkpoint["dice_per_class_or_region"][0]] == [float, float]


def test_checkpoint_is_not_changed_by_later_epochs():
    logger = LocalLogger()
    checkpoint = logger.get_checkpoint()
    logger.log("lrs", 0.1, 0)
    assert checkpoint["lrs"] == []


def test_history_goes_on_after_a_checkpoint(tmp_path):
    resumed = MetaLogger(tmp_path, True)
    resumed.load_checkpoint(_logger_of_epochs(tmp_path, [0.5, 0.7]).get_checkpoint())
    resumed.log("mean_fg_dice", 0.1, 2)
    assert resumed.get_value("ema_fg_dice", None) == pytest.approx([0.5, 0.52, 0.478])


def test_a_second_value_of_an_epoch_replaces_the_first(caplog):
    logger = LocalLogger()
    logger.log("lrs", 0.1, 0)
    with caplog.at_level(logging.WARNING):
        logger.log("lrs", 0.2, 0)
    assert logger.get_value("lrs", None) == [0.2]
    assert "lrs of epoch 0 was logged twice" in caplog.text


def test_a_value_of_a_past_epoch_is_refused():
    logger = LocalLogger()
    for epoch in range(3):
        logger.log("lrs", 0.1, epoch)
    with pytest.raises(ValueError, match="cannot log lrs of epoch 1: epoch 2 has a value already"):
        logger.log("lrs", 0.1, 1)


def test_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match="cannot log 'accuracy': the keys are mean_fg_dice"):
        LocalLogger().log("accuracy", 1.0, 0)


def test_names_that_older_trainers_use():
    assert nnUNetLogger().my_fantastic_logging["lrs"] == []


def test_progress_picture_is_replaced_and_nothing_else_left(tmp_path):
    logger = _logger_of_epochs(tmp_path, [0.5, math.nan, 0.7])
    (tmp_path / "progress.png").write_bytes(b"older picture")
    logger.plot_progress_png(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")


def test_progress_picture_before_the_first_epoch(tmp_path):
    LocalLogger().plot_progress_png(tmp_path)
    assert (tmp_path / "progress.png").is_file()


def test_progress_picture_leaves_unfinished_epochs_out(tmp_path, monkeypatch):
    drawn = {}
    logger = _logger_of_epochs(tmp_path, [0.5, 0.7])
    logger.log("train_losses", 1.0, 2)
    import nnunetv2.training.logging.progress_plot as module

    monkeypatch.setattr(module, "draw_progress", lambda history: drawn.update(history) or draw_progress(history))
    logger.plot_progress_png(tmp_path)
    assert {len(values) for values in drawn.values()} == {2}


def test_progress_picture_shows_durations_losses_and_rates():
    history: dict[str, Any] = {key: [1.0, 2.0] for key in HISTORY_KEYS}
    history |= {"epoch_start_timestamps": [10.0, 20.0], "epoch_end_timestamps": [13.0, 25.0], "lrs": [0.1, 0.05]}
    loss_axes, duration_axes, rate_axes, dice_axes = draw_progress(history).axes
    assert list(duration_axes.lines[0].get_ydata()) == [3.0, 5.0]
    assert list(rate_axes.lines[0].get_ydata()) == [0.1, 0.05]
    assert [len(loss_axes.lines), len(dice_axes.lines)] == [2, 2]


def test_cluster_job_id_prefers_slurm(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("LSB_JOBID", raising=False)
    assert get_cluster_job_id() is None
    monkeypatch.setenv("LSB_JOBID", "7")
    assert get_cluster_job_id() == "7"
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert get_cluster_job_id() == "8"


def test_wandb_switch_must_be_on_or_off(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_wandb_enabled", "maybe")
    with pytest.raises(UsageError, match="nnUNet_wandb_enabled is 'maybe'; set it to 0"):
        MetaLogger(tmp_path, False)


def test_wandb_missing_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="pip install wandb"):
        MetaLogger(tmp_path, False)


class _FakeRun:
    def __init__(self, step: int) -> None:
        self.step = step
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, Any], int]] = []

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((values, step))


@pytest.fixture
def wandb_calls(monkeypatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setitem(
        sys.modules, "wandb", SimpleNamespace(init=lambda **kwargs: calls.append(kwargs) or _FakeRun(step=1))
    )
    return calls


def test_wandb_gets_values_configuration_and_summary(tmp_path, wandb_calls):
    logger = MetaLogger(tmp_path, resume=False)
    logger.update_config({"fold": 0})
    logger.log("dice_per_class_or_region", [0.25, 0.75], 0)
    logger.log("mean_fg_dice", 0.5, 0)
    logger.log_summary("final", 0.9)
    run = logger.loggers[0].run
    assert wandb_calls[0]["resume"] == "never" and wandb_calls[0]["project"] == "nnunet"
    assert run.config["fold"] == 0
    assert run.summary["final"] == 0.9
    assert run.logged == [
        ({"dice_per_class_or_region/class_1": 0.25}, 0),
        ({"dice_per_class_or_region/class_2": 0.75}, 0),
        ({"mean_fg_dice": 0.5}, 0),
        ({"ema_fg_dice": 0.5}, 0),
    ]


def test_wandb_resumes_its_run_and_passes_over_what_it_has(tmp_path, wandb_calls):
    (tmp_path / "wandb" / "latest-run").mkdir(parents=True)
    (tmp_path / "wandb" / "latest-run" / "run-ab12.wandb").touch()
    logger = MetaLogger(tmp_path, resume=True)
    logger.log("lrs", 0.1, 0)
    logger.log("lrs", 0.2, 1)
    assert (wandb_calls[0]["id"], wandb_calls[0]["resume"]) == ("ab12", "allow")
    assert logger.loggers[0].run.logged == [({"lrs": 0.2}, 1)]


def test_wandb_starts_afresh_without_resume(tmp_path, wandb_calls):
    (tmp_path / "wandb" / "latest-run").mkdir(parents=True)
    MetaLogger(tmp_path, resume=False)
    assert wandb_calls[0]["id"] is None
    assert not (tmp_path / "wandb").exists()
