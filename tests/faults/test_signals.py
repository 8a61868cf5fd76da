"""Row 5: a signal ends a training after the running step; completed epochs are saved, `--c` resumes exactly."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2.run.run_training import run_training
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.faults.conftest import one_line
from tests.faults.injection import times
from tests.faults.trainings import training

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WORDS = ("777", "2d", "0", "-tr", "FaultTrainer", "-device", "cpu")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def final_weights(fold: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(fold / "checkpoint_final.pth")["network_weights"]


@pytest.mark.parametrize("number", range(times(3, 10)))
def test_signal_saves_completed_epochs_and_a_resumed_training_ends_with_the_same_weights(
    number: int, fault_trainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training("777", "2d", 0, "FaultTrainer", device=torch.device("cpu"), seed=3)
    expected = final_weights(fault_trainer)
    fault_trainer.parents[2].rename(tmp_path / "uninterrupted")
    fault_trainer.parents[2].mkdir()

    with training(fault_trainer, *WORDS, "--seed", "3", STEP_SECONDS="0.3") as running:
        running.wait_for(f"Epoch {1 + number % 3}")
        time.sleep(np.random.default_rng(number).uniform(0, 0.8))
        completed = running.lines().count("Epoch time")
        code, errors = running.end(SIGNALS[number % 3])
    assert code == 75
    one_line(errors, f"Stopped by {SIGNALS[number % 3].name}", "epochs are completed and saved", "--c resumes it")
    saved = load_checkpoint(fault_trainer / "checkpoint_latest.pth")
    assert saved["current_epoch"] == running.lines().count("Epoch time") >= completed
    assert len(saved["logging"]["train_losses"]) == saved["current_epoch"]

    run_training("777", "2d", 0, "FaultTrainer", device=torch.device("cpu"), continue_training=True)
    resumed = final_weights(fault_trainer)
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())


def test_second_signal_ends_a_training_at_once(fault_trainer: Path) -> None:
    with training(fault_trainer, *WORDS, STEP_SECONDS="100") as running:
        running.wait_for("Epoch 0")
        running.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert running.process.poll() is None
        code, _ = running.end(signal.SIGTERM)
    assert code == -signal.SIGTERM


def test_signal_before_the_first_epoch_has_ended_leaves_nothing(fault_trainer: Path) -> None:
    with training(fault_trainer, *WORDS, STEP_SECONDS="0.5") as running:
        running.wait_for("Epoch 0")
        code, errors = running.end(signal.SIGTERM)
    assert code == 75
    one_line(errors, "no epoch was completed", "start the training again")
    assert not list(fault_trainer.glob("*.pth"))


def test_signal_in_the_final_validation_ends_it_and_its_workers(fault_trainer: Path) -> None:
    with training(fault_trainer, *WORDS, "--num_epochs", "1", nnUNet_def_n_proc="2") as running:
        running.wait_for("Predicting case")
        code, errors = running.end(signal.SIGUSR1)
    assert code == 75
    one_line(errors, "Stopped by SIGUSR1", "--c continues from the last checkpoint")
    assert load_checkpoint(fault_trainer / "checkpoint_final.pth")["current_epoch"] == 1


def test_trainers_with_a_loop_of_their_own_end_at_once(fault_trainer: Path) -> None:
    fold = fault_trainer.parents[1] / "OwnLoopTrainer__nnUNetPlans__2d" / "fold_0"
    with training(fold, *WORDS[:3], "-tr", "OwnLoopTrainer", "-device", "cpu") as running:
        running.wait_for("own loop")
        code, errors = running.end(signal.SIGTERM)
    assert code == 75
    one_line(errors, "Stopped by SIGTERM. The same command with --c")
