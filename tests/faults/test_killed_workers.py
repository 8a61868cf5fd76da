"""Rows 6 and 7: a killed augmentation worker is replaced; killed parents take their workers with them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from nnunetv2.run.run_training import run_training
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.faults.conftest import one_line
from tests.faults.trainings import Training, training
from tests.processes import is_alive, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WORDS = ("777", "2d", "0", "-tr", "FaultTrainer", "-device", "cpu")


def test_a_seeded_training_survives_a_killed_worker_with_the_same_weights(fault_trainer: Path, tmp_path: Path) -> None:
    run_training("777", "2d", 0, "FaultTrainer", device=torch.device("cpu"), seed=3)
    expected = load_checkpoint(fault_trainer / "checkpoint_final.pth")["network_weights"]
    fault_trainer.parents[2].rename(tmp_path / "undisturbed")
    fault_trainer.parents[2].mkdir()
    with training(fault_trainer, *WORDS, "--seed", "3", nnUNet_n_proc_DA="2", STEP_SECONDS="0.5") as running:
        running.wait_for("Epoch 0")
        running.workers()[0].kill()
        assert running.exit_code() == 0, running.errors.read_text()
    weights = load_checkpoint(fault_trainer / "checkpoint_final.pth")["network_weights"]
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())


@pytest.mark.parametrize("seed", [(), ("--seed", "3")], ids=["no seed", "seed"])
def test_workers_that_are_killed_again_and_again_end_the_training_with_the_cause(
    seed: tuple[str, ...], fault_trainer: Path
) -> None:
    with training(fault_trainer, *WORDS, *seed, "--num_epochs", "10000") as running:
        running.wait_for("Epoch 0")
        wait_until(lambda: _has_ended_after_one_more_kill(running), "the training outlives the deaths of its workers")
        assert running.exit_code() == 1
    one_line(running.errors.read_text(), "worker died (signal 9", "the last of 4", "/dev/shm", "memory")


def _has_ended_after_one_more_kill(running: Training) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # the training has ended meanwhile
        for victim in running.workers()[:1]:
            victim.kill()
            wait_until(lambda gone=victim.pid: not is_alive(gone))
    return running.process.poll() is not None


POOL = """
import sys, time
from nnunetv2.utilities.processes.case_pool import map_cases
if __name__ == "__main__":
    list(map_cases(time.sleep, [(100,), (100,)], 2))
"""


def test_workers_of_preprocessing_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    parent = subprocess.Popen([sys.executable, str(script)])
    try:
        workers = wait_until(
            lambda: [
                child
                for child in psutil.Process(parent.pid).children()
                if child.num_threads() > 1 and "spawn_main" in " ".join(child.cmdline())
            ][:2]
        )
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not any(is_alive(worker.pid) for worker in workers), "a worker outlived its parent")
