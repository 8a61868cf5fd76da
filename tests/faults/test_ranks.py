"""Rows 6 and 37: several processes stop together, end when one is killed, and end with the command."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.faults.conftest import one_line
from tests.faults.trainings import Training, training
from tests.processes import is_alive, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WORDS = ("777", "2d", "0", "-tr", "FaultTrainer", "-device", "cpu", "--num_epochs", "100", "-num_gpus", "2")


def rank(running: Training, number: int) -> psutil.Process:
    """A process of the group; they are the direct children and start in order."""
    direct = [child for child in running.children() if child.ppid() == running.process.pid]
    return sorted(direct, key=lambda child: child.create_time())[number]


@pytest.mark.parametrize("receiver", ["the command", "one of its processes"])
def test_a_signal_makes_all_processes_save_once_and_stop(receiver: str, fault_trainer: Path) -> None:
    with training(fault_trainer, *WORDS, STEP_SECONDS="0.05") as running:
        running.wait_for("Epoch 2")
        children = running.children()
        (running.process if receiver == "the command" else rank(running, 1)).send_signal(signal.SIGTERM)
        code, errors = running.exit_code(), running.errors.read_text()
        assert psutil.wait_procs(children, timeout=5)[1] == []
    assert code == 75, errors
    one_line(errors, "epochs are completed and saved", "--c resumes it")
    saved = load_checkpoint(fault_trainer / "checkpoint_latest.pth")["current_epoch"]
    assert saved == running.lines().count("Epoch time")
    assert running.lines().count("Stopped by") == 1


@pytest.mark.parametrize("victim", ["a process", "the command"])
def test_a_killed_process_ends_the_others_and_the_checkpoint_is_whole(victim: str, fault_trainer: Path) -> None:
    with training(fault_trainer, *WORDS, STEP_SECONDS="0.05") as running:
        wait_until(lambda: (fault_trainer / "checkpoint_best.pth").exists())
        children = running.children()
        assert len(children) >= 6  # two processes with two augmentation workers each
        (running.process if victim == "the command" else rank(running, 1)).kill()
        assert running.exit_code() != 0
        wait_until(lambda: not any(is_alive(child.pid) for child in children), "a process outlived the command")
    assert load_checkpoint(fault_trainer / "checkpoint_best.pth")["current_epoch"] >= 1
