"""Trainings that several processes share: the same numbers as one process, and an end when one of them dies."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from dinov3.utils.processes.launch import launch
from nnunetv2.run import run_training
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.contracts.cases import write_empty_dataset
from tests.processes import wait_until
from tests.training.shared_training import STEPS, Shared, train, train_in_group
from tests.training.tiny_dataset import NAME, write_tiny_dataset

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SHARED = (
    Shared("unet", "full", 1, "labels"),
    Shared("unet", "full", 1, "labels", batch_dice=False),
    Shared("unet", "full", 1, "regions"),
    Shared("unet", "full", 1, "regions", batch_dice=False, deep_supervision=False),
    Shared("m2f", "lora", 1, "labels"),
)
TRAINERS = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class ShortForTests(nnUNetTrainer):
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch = 2, 3, 2

class LongForTests(nnUNetTrainer):
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch, save_every = 10**6, 2, 1, 1
"""


@pytest.fixture(autouse=True)
def _one_thread_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "trainers_for_several_processes.py").write_text(TRAINERS)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "trainers"))
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


def test_two_processes_train_like_one_with_the_same_images(nnunet_folders: dict[str, Path], tmp_path: Path) -> None:
    write_empty_dataset(nnunet_folders["nnUNet_preprocessed"])
    launch(train_in_group, (SHARED, tmp_path), 2, advice="")
    for combination in SHARED:
        losses, weights = train(combination, tmp_path)
        shared_losses, shared_weights = torch.load(tmp_path / f"{combination}.pt", weights_only=True)
        assert len(losses) == STEPS
        np.testing.assert_allclose(shared_losses, losses, rtol=1e-6, atol=1e-6, err_msg=str(combination))
        for name, value in weights.items():
            torch.testing.assert_close(shared_weights[name], value, rtol=1e-4, atol=1e-5)


def test_command_with_two_processes_gives_the_files_and_numbers_of_one(
    dataset: Path, nnunet_folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    model = nnunet_folders["nnUNet_results"] / dataset.name / "ShortForTests__nnUNetPlans__2d"
    command = [NAME, "2d", "0", "-tr", "ShortForTests", "-device", "cpu", "--seed", "5"]
    results = {}
    for num_gpus in (1, 2):
        assert run_training.run_training_entry([*command, "-num_gpus", str(num_gpus)]) == 0
        names = {str(path.relative_to(model)).partition("_log_")[0] for path in model.rglob("*")}
        final = load_checkpoint(model / "fold_0" / "checkpoint_final.pth")
        summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
        results[num_gpus] = names, final["logging"], final["network_weights"], summary["foreground_mean"]["Dice"]
        model.rename(model.with_name(f"with_{num_gpus}"))
    (names, history, weights, dice), (shared_names, shared_history, shared_weights, shared_dice) = results.values()
    assert shared_names == names
    for key in ("train_losses", "val_losses", "mean_fg_dice"):
        np.testing.assert_allclose(shared_history[key], history[key], rtol=0, atol=1e-5)
    torch.testing.assert_close(shared_weights, weights, rtol=0, atol=1e-4)
    assert shared_dice == pytest.approx(dice, abs=1e-3)
    assert capfd.readouterr().out.count(": Epoch 1: ") == 2  # only one of two processes says it


def test_death_of_one_process_ends_a_torchrun_job(
    dataset: Path, nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    fold = nnunet_folders["nnUNet_results"] / dataset.name / "LongForTests__nnUNetPlans__2d" / "fold_0"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    command = ["nnunetv2.run.run_training", NAME, "2d", "0", "-tr", "LongForTests", "-device", "cpu"]
    with open(tmp_path / "errors.txt", "w+") as errors:
        job = subprocess.Popen([*launcher, *command], stdout=subprocess.DEVNULL, stderr=errors)
        try:
            wait_until(lambda: (fold / "checkpoint_latest.pth").exists() or job.poll() is not None)
            assert job.poll() is None, "the job ended too early"
            processes = psutil.Process(job.pid).children(recursive=True)
            (second,) = (p for p in psutil.Process(job.pid).children() if p.environ().get("RANK") == "1")
            second.kill()
            assert job.wait(60) != 0
        finally:
            job.kill()
        errors.seek(0)
        (line,) = (line for line in errors.read().splitlines() if line.startswith("error: "))
    # Process 0 notices first either the lost connection, within a step, or the signal that torchrun sends to it.
    assert re.match(
        r"error: (Process 0 of 2 \(the first is 0\) lost the connection to another|Stopped by SIGTERM)", line
    )
    assert "--c" in line
    assert len(processes) >= 6  # two processes with two augmentation workers each
    assert psutil.wait_procs(processes, timeout=30)[1] == []
    assert load_checkpoint(fold / "checkpoint_latest.pth")["current_epoch"] >= 1
