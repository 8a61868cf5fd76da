"""What a training tells on the console, in files of metrics, and as a picture; also with hooks overridden."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from time import time
from typing import Any

import pytest
import torch
from torch import nn

from nnunetv2.training.logging import epoch_values
from nnunetv2.training.logging.metric_lines import read_metrics
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.loop import training_reports
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.training.tiny_dataset import Schedule, make_trainer, write_tiny_dataset


class QuickTrainer(nnUNetTrainer):
    """Goes through every hook without computing anything that takes time."""

    def initialize(self) -> None:
        self.network = nn.Conv2d(1, 3, 1)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self.was_initialized = True

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.network.weight]}, {"params": [self.network.bias]}]

    def on_train_start(self) -> None:
        self.was_initialized or self.initialize()
        Path(self.output_folder).mkdir(parents=True, exist_ok=True)
        self.dataloader_train = self.dataloader_val = iter(lambda: {}, None)
        self.print_plans()

    def train_step(self, batch: dict) -> dict:
        for group in self.optimizer.param_groups:
            group["lr"] /= 2  # as schedules that go by iterations change it within an epoch
        return {"loss": torch.tensor(0.5 - self.current_epoch).numpy()}

    def validation_step(self, batch: dict) -> dict:
        counts = {"tp_hard": [3.0, 0.0], "fp_hard": [1.0, 0.0], "fn_hard": [0.0, 0.0]}
        return {"loss": torch.tensor(0.25).numpy(), **{name: torch.tensor(n).numpy() for name, n in counts.items()}}

    def save_checkpoint(self, filename: str) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_external_loggers(nnunet_folders: dict[str, Path], monkeypatch) -> None:
    for name in ("nnUNet_wandb_enabled", "nnUNet_tensorboard_enabled"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """How many epochs there were each time the picture was drawn."""
    epochs: list[int] = []
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: epochs.append(len(self._history["lrs"])))
    return epochs


def trained(trainer_class: type, num_epochs: int, first_epoch: int = 0, history: dict | None = None) -> Any:
    trainer = make_trainer(trainer_class, Schedule(epochs=num_epochs, iterations=3, validation_iterations=2))
    if first_epoch:
        trainer.logger.load_checkpoint(history)
        trainer.current_epoch = first_epoch
    trainer.run_training()
    return trainer


def lines_of(trainer: Any, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(Path(trainer.output_folder) / "metrics.jsonl") if line["type"] == kind]


def test_an_epoch_is_told_with_what_it_cost(drawn):
    trainer = trained(QuickTrainer, 2)
    first, second = lines_of(trainer, "epoch")
    assert (second["epoch"], second["train_loss"], second["val_loss"]) == (1, -0.5, 0.25)
    assert second["dice"] == {"left": pytest.approx(6 / 7), "right": None}  # of a class that is not there
    assert second["mean_fg_dice"] == second["ema_fg_dice"] == pytest.approx(6 / 7)
    assert first["lr"] == [0.01, 0.01] and 0 < second["lr"][1] < 0.01
    assert second["samples_per_second"] == pytest.approx(3 * 2 / second["train_seconds"])
    assert 0 < second["train_seconds"] <= second["seconds"] < 60
    assert second["world_size"] == 1 and second["peak_gpu_memory_mib"] is None
    table = (Path(trainer.output_folder) / "metrics.csv").read_text()
    (row,) = list(csv.DictReader(table.splitlines()))[1:]
    assert (row["epoch"], row["train_loss"], row["dice_right"], row["lr_0"]) == ("1", "-0.5", "", row["lr_1"])
    assert drawn[0] == 1 and drawn[-1] == 2


def test_the_run_is_described_in_front(drawn):
    (run,) = lines_of(trained(QuickTrainer, 1), "run")
    expected = {
        "first_epoch": 0,
        "format": 1,
        "trainer": "QuickTrainer",
        "plans": "nnUNetPlans",
        "configuration": "2d",
        "fold": 0,
        "dataset": "Dataset777_Tiny",
        "num_epochs": 1,
        "num_iterations_per_epoch": 3,
        "batch_size": 2,
        "patch_size": [32, 32],
        "precision": "fp32",
        "seed": None,
        "num_parameters": 6,
        "num_trained_parameters": 6,
        "world_size": 1,
        "device": "cpu",
        "torch_version": torch.__version__,
        "split": None,  # its loaders are none that tell
        "augmentation": None,
        "oversample_foreground_percent": None,
        "fingerprint_sha256": None,
        "mirror_axes": [],
        "tile_step_size": 0.5,
        "optimizer": "SGD",
        "initial_lr": 0.01,
        "pretrained_weights": "none given",
    }
    assert {key: run[key] for key in expected} == expected
    assert run["command"] and run["started"] and run["version"]


def test_the_console_has_a_line_per_epoch_and_the_log_file_everything(drawn, capsys):
    trainer = trained(QuickTrainer, 2)
    console = capsys.readouterr().out.splitlines()
    log = Path(trainer.log_file).read_text()
    assert len(console) == 4
    assert "QuickTrainer on Dataset777_Tiny, 2d, fold 0: 6 parameters, 2 patches of 32 x 32 per batch" in console[0]
    assert "Epoch 0: train_loss 0.5000, val_loss 0.2500, pseudo Dice 0.8571" in console[1]
    assert ", moving average 0.8571 (best), " in console[1]
    assert "; 1 to go, about " in console[1]
    assert "(best)" not in console[2] and "to go" not in console[2]
    assert console[3].endswith("Training done.")
    for text in ("Plans: ", "Epoch 1\n", "Current learning rate: ", "train_loss -0.5000", "val_loss 0.2500"):
        assert text in log
    for text in ("Pseudo dice [0.8571, nan]", "Epoch time: ", "New best EMA pseudo Dice: 0.8571"):
        assert text in log
    assert log.count("train_loss") == 2  # programs that read the file find each value once


def test_a_resumed_training_goes_on_behind_its_checkpoint(drawn):
    history = trained(QuickTrainer, 3).logger.get_checkpoint()
    resumed = trained(QuickTrainer, 4, first_epoch=2, history={key: values[:2] for key, values in history.items()})
    assert [line["epoch"] for line in lines_of(resumed, "epoch")] == [0, 1, 2, 3]
    assert [line["first_epoch"] for line in lines_of(resumed, "run")] == [0, 2]


class CopiedHooks(QuickTrainer):
    """A trainer with hooks and loop of its own, as upstream's subclasses have them."""

    def on_epoch_end(self) -> None:
        self.logger.log("epoch_end_timestamps", time(), self.current_epoch)
        self.print_to_log_file("train_loss", self.logger.get_value("train_losses", step=-1))
        self.logger.plot_progress_png(self.output_folder)
        self.current_epoch += 1

    def run_training(self) -> None:
        self.on_train_start()
        for _ in range(self.current_epoch, self.num_epochs):
            self.on_epoch_start()
            self.on_train_epoch_start()
            self.on_train_epoch_end([self.train_step({})])
            self.on_validation_epoch_start()
            self.on_validation_epoch_end([self.validation_step({})])
            self.on_epoch_end()


def test_overridden_hooks_and_loops_are_reported_too(drawn, capsys):
    trainer = trained(CopiedHooks, 2)
    assert [line["train_seconds"] for line in lines_of(trainer, "epoch")] == [None, None]
    console = capsys.readouterr().out
    assert console.count("Epoch 1: train_loss -0.5000") == 1
    assert console.count("train_loss -0.5\n") == 1  # what users print stays on the console


class OwnLogger(QuickTrainer):
    """As trainers of before 2.8 bring their own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = MyLogger()


class MyLogger(LocalLogger):
    def log(self, key: str, value: Any, epoch: int) -> None:
        super().log(key, value, epoch)
        if key == "mean_fg_dice":
            super().log("ema_fg_dice", value, epoch)
            self.my_fantastic_logging.setdefault("my_value", []).append(7)


def test_a_logger_of_a_users_own_is_reported_too(drawn, capsys):
    trainer = trained(OwnLogger, 2)
    assert [line["my_value"] for line in lines_of(trainer, "epoch")] == [7, 7]
    assert capsys.readouterr().out.count("Epoch 1: train_loss") == 1
    assert drawn[-1] == 2


def test_of_several_processes_the_first_tells(drawn, capsys, monkeypatch):
    monkeypatch.setattr(training_reports, "rank_and_world_size", lambda: (1, 2))
    trainer = make_trainer(QuickTrainer, Schedule(epochs=1))
    trainer.local_rank = 1
    trainer.run_training()
    trainer.logger.log_summary("final_val/foreground_dice", 0.5)
    assert capsys.readouterr().out == ""
    assert list(Path(trainer.output_folder).iterdir()) == drawn == []


def test_final_scores_are_the_last_line(drawn):
    trainer = trained(QuickTrainer, 1)
    scores = {"seconds_per_case": 1.5, "class_1_dice": 0.5, "class_2_dice": math.nan, "foreground_dice": 0.75}
    for key, value in scores.items():
        trainer.logger.log_summary(f"final_val/{key}", value)
    text = (Path(trainer.output_folder) / "metrics.jsonl").read_text()
    last = json.loads(text.splitlines()[-1])
    del last["time"]
    assert last == {
        "type": "validation",
        "epochs_trained": 1,
        "checkpoint": "final",
        "seconds_per_case": 1.5,
        "mean_fg_dice": 0.75,
        "dice": {"left": 0.5, "right": None},
    }


def test_reports_that_fail_do_not_end_the_training(drawn, monkeypatch, caplog):
    monkeypatch.setattr(training_reports, "run_information", lambda *_: 1 / 0)
    assert trained(QuickTrainer, 2).current_epoch == 2
    assert [message for message in caplog.messages if "TrainingReports failed (ZeroDivisionError" in message]


def test_without_a_folder_of_results_nothing_is_written(drawn, monkeypatch):
    monkeypatch.delenv("nnUNet_results")
    trainer = make_trainer(QuickTrainer)
    trainer.initialize()
    trainer.logger.log("epoch_start_timestamps", 1.0, 0)
    trainer.logger.log("epoch_end_timestamps", 2.0, 0)
    trainer.logger.log_summary("final_val/foreground_dice", 0.5)
    assert drawn == []


def test_memory_of_the_gpu_is_told_in_mebibytes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 5 * 2**20)
    assert epoch_values.peak_gpu_memory(torch.device("cuda", 0)) == {
        "peak_gpu_memory_mib": 3.0,
        "peak_gpu_memory_reserved_mib": 5.0,
    }


def test_a_trainer_is_freed_with_its_last_name():
    import gc
    import weakref

    gc.disable()
    try:
        trainer = make_trainer(QuickTrainer)
        assert trainer.logger.loggers
        reference = weakref.ref(trainer)
        del trainer
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_real_training_ends_with_files_that_agree_with_its_checkpoint(nnunet_folders):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = trained(nnUNetTrainer, 2)
    trainer.perform_actual_validation()
    folder = Path(trainer.output_folder)
    content = load_checkpoint(folder / "checkpoint_final.pth")
    for epoch, line in enumerate(lines_of(trainer, "epoch")):
        assert line["train_loss"] == content["logging"]["train_losses"][epoch]
        assert list(line["dice"].values()) == content["logging"]["dice_per_class_or_region"][epoch]
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    (final,) = lines_of(trainer, "validation")
    assert final["mean_fg_dice"] == summary["foreground_mean"]["Dice"]
    assert final["dice"] == {"left": summary["mean"]["1"]["Dice"], "right": summary["mean"]["2"]["Dice"]}
    assert (folder / "progress.png").is_file()
