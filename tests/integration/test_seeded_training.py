"""`--seed`: the same weights again, whatever makes the batches, and also after a training was killed and continued."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.run.run_training import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.training.nnUNetTrainer.test_nnUNetTrainer_m2f import SMALL
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

pytestmark = pytest.mark.integration

TRAINER = "SeededTrainerForTests"
SOURCE = """
import os, signal
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class SeededTrainerForTests(nnUNetTrainer):
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch, save_every = 3, 3, 1, 1

    def __init__(self, plans, configuration, fold, dataset_json, device=None):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.steps = 0

    def adapt_plans(self, plans, configuration):
        arguments = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
        arguments.update(dropout_op="torch.nn.Dropout2d", dropout_op_kwargs={"p": 0.2})
        return plans

    def train_step(self, batch):
        self.steps += 1
        if self.steps == int(os.environ.get("KILL_AT_STEP", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_step(batch)

    def perform_actual_validation(self, save_probabilities=False):
        return
"""


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path]) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


@pytest.fixture
def results(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for folders of results; a trainer with dropout is found by name."""
    folder = tmp_path / "trainers"
    folder.mkdir()
    (folder / f"seeded_trainer_{abs(hash(str(tmp_path)))}.py").write_text(SOURCE)
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    return tmp_path


def _train(results: Path, monkeypatch: pytest.MonkeyPatch, workers: int = 0, **options: Any) -> dict[str, torch.Tensor]:
    """Trains into a folder of results; returns the final weights."""
    results.mkdir(exist_ok=True)
    monkeypatch.setenv("nnUNet_results", str(results))
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    run_training(777, "2d", 0, TRAINER, device=torch.device("cpu"), **options)
    return _content(results)["network_weights"]


def _fold(results: Path) -> Path:
    return next(results.glob("*/*/fold_0"))


def _content(results: Path, name: str = checkpoint.FINAL) -> dict[str, Any]:
    return load_checkpoint(_fold(results) / name)


def _are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_same_seed_same_weights_with_and_without_workers(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _train(results / "first", monkeypatch, seed=7)
    assert _are_equal(first, _train(results / "again", monkeypatch, seed=7))
    assert _are_equal(first, _train(results / "workers", monkeypatch, workers=2, seed=7))
    assert not _are_equal(first, _train(results / "other", monkeypatch, seed=8))
    assert _content(results / "first")["seed"] == 7
    fold = _fold(results / "first")
    assert '"seed": "7"' in (fold / "debug.json").read_text()
    assert "Seed 7: " in next(fold.glob("training_log_*")).read_text()


def test_a_killed_training_continues_to_the_same_weights(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uninterrupted = _train(results / "whole", monkeypatch, seed=7)
    killed = results / "killed"
    killed.mkdir()
    environment = os.environ | {"nnUNet_results": str(killed), "nnUNet_n_proc_DA": "2", "KILL_AT_STEP": "8"}
    environment["OMP_NUM_THREADS"] = "1"  # as in this process; sums of other numbers of threads have other last bits
    command = "from nnunetv2.run.run_training import run_training_entry; run_training_entry()"
    words = ["777", "2d", "0", "-tr", TRAINER, "-device", "cpu", "--seed", "7"]
    ended = subprocess.run(
        [sys.executable, "-c", command, *words], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert _content(killed, checkpoint.LATEST)["current_epoch"] == 2
    with_best_alone = results / "with_best_alone"
    shutil.copytree(killed, with_best_alone)
    (_fold(with_best_alone) / checkpoint.LATEST).unlink()

    with pytest.raises(UsageError, match="was started with seed 7 and cannot go on with seed 8; leave out --seed"):
        _train(killed, monkeypatch, seed=8, continue_training=True)
    for folder in (killed, with_best_alone):
        assert _are_equal(uninterrupted, _train(folder, monkeypatch, continue_training=True))
        history, expected = (_content(of)["logging"] for of in (folder, results / "whole"))
        for key in ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs"):
            assert history[key] == expected[key]
        assert _content(folder)["seed"] == 7


class _Interrupted(nnUNetTrainer_m2f):
    """Ends in the second step of the second epoch."""

    save_every = 1

    def train_step(self, batch: dict) -> dict:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 4:
            raise KeyboardInterrupt
        return super().train_step(batch)


@pytest.mark.parametrize("augmentation", ["true", "false"])
def test_mask2former_draws_the_same_points_again_also_after_an_interruption(augmentation: str, dataset: Path) -> None:
    def make(trainer_class: type[nnUNetTrainer_m2f]) -> nnUNetTrainer_m2f:
        settings = [*SMALL, f"use_nnunet_augmentation={augmentation}", "model.tuning=full"]
        trainer = make_trainer(trainer_class, m2f_overrides=settings)
        trainer.seed = 5
        return trainer

    whole, interrupted, resumed = make(nnUNetTrainer_m2f), make(_Interrupted), make(nnUNetTrainer_m2f)
    whole.run_training()
    with pytest.raises(KeyboardInterrupt):
        interrupted.run_training()
    resumed.load_checkpoint(Path(interrupted.output_folder) / checkpoint.LATEST)
    resumed.run_training()
    assert resumed.logger.get_value("train_losses", None) == whole.logger.get_value("train_losses", None)
    assert _are_equal(whole.network.state_dict(), resumed.network.state_dict())
