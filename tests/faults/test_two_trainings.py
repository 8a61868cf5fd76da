"""Row 29: a second training of a fold, or a validation beside it, is refused; the lock of a killed one is free."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from nnunetv2.run.run_training import run_training_entry
from tests.faults.conftest import one_line
from tests.faults.trainings import training

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WORDS = ("777", "2d", "0", "-tr", "FaultTrainer", "-device", "cpu", "--disable_checkpointing")


def test_second_training_is_refused_and_the_lock_of_a_killed_one_is_free(fault_trainer: Path, run) -> None:
    with training(fault_trainer, *WORDS, STEP_SECONDS="1") as first:
        first.wait_for("Epoch 0")
        logs = sorted(fault_trainer.glob("training_log_*"))
        for words in (WORDS, (*WORDS[:-1], "--c"), (*WORDS[:-1], "--val")):
            code, errors = run(run_training_entry, *words)
            assert code == 6
            one_line(errors, f"process {first.process.pid} on ", "is training in", str(fault_trainer), "--force")
        assert sorted(fault_trainer.glob("training_log_*")) == logs
        code, _ = first.end(signal.SIGKILL)
        assert code == -signal.SIGKILL
    with training(fault_trainer, *WORDS, name="second.txt", STEP_SECONDS="1") as second:
        second.wait_for("Epoch 0\n")
        with training(fault_trainer, *WORDS, "--force", name="third.txt") as third:
            assert third.exit_code() == 0, third.errors.read_text()


def test_a_training_that_is_refused_leaves_no_folder(tiny_images: Path, nnunet_folders: dict[str, Path], run) -> None:
    code, errors = run(run_training_entry, "777", "3d_cascade", "0", "-device", "cpu")
    assert code == 2
    one_line(errors, "3d_cascade")
    assert list(nnunet_folders["nnUNet_results"].iterdir()) == []
