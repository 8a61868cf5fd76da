"""`nnUNetv2_study`: killed at any moment and started again, it ends with the models of a study that was not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from dinov3.utils.atomic_files import read_json
from nnunetv2.run.run_training import run_training
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.processes import LONGEST_WAIT, is_alive, wait_until
from tests.training.tiny_dataset import NAME, write_tiny_dataset

pytestmark = pytest.mark.integration

LENGTH = {"num_epochs": 2, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1}
STUDY = f"""
dataset: {NAME}
folds: [0, 1]
seeds: [5]
device: cpu
budget: {LENGTH}
models:
  unet:
environment: {{OMP_NUM_THREADS: 1}}
""".replace("'", "")
MODEL = Path(NAME, "nnUNetTrainer__nnUNetPlans__2d")


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path]) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


def start(path: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "nnunetv2.study.entry_point", str(path), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(path: Path, *flags: str) -> tuple[int, str]:
    process = start(path, *flags)
    output, _ = process.communicate(timeout=2 * LONGEST_WAIT)
    return process.returncode, output


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    wait_until(lambda: condition() or process.poll() is not None)
    assert condition(), process.communicate()[0]


def kill(study: subprocess.Popen) -> None:
    """By SIGKILL; returns when the training that it had started has ended, too."""
    children = [child.pid for child in psutil.Process(study.pid).children(recursive=True)]
    study.kill()
    study.communicate()
    wait_until(lambda: not any(map(is_alive, children)))


def leave_half_files(validation: Path) -> None:
    """As a process that is killed while it writes them; the kills of a test seldom come at that moment."""
    validation.mkdir(parents=True, exist_ok=True)
    for folder, name in ((validation, "case_0.png"), (validation, "summary.json"), (validation.parent, "plans.json")):
        (folder / f".0123abcd.tmp.{name}").write_bytes(b"half")


def results_of(model: Path) -> dict[str, object]:
    """Final weights and scores of both folds."""
    found: dict[str, object] = {}
    for fold in ("fold_0", "fold_1"):
        found[f"{fold} weights"] = load_checkpoint(model / fold / checkpoint.FINAL)["network_weights"]
        summary = read_json(model / fold / "validation" / "summary.json")
        found[f"{fold} scores"] = [case["metrics"] for case in summary["metric_per_case"]]
    return found


@pytest.mark.timeout(900)
def test_a_study_that_is_killed_loses_no_finished_fold(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(STUDY)
    model = tmp_path / "mine" / "trainings" / "unet" / "seed_5" / MODEL
    moments = [
        model / "fold_0" / "debug.json",  # nothing to go on from
        model / "fold_0" / checkpoint.BEST,  # in the second epoch, or at its end
        model / "fold_0" / "validation" / "summary.json",  # between two folds, or in the second
    ]
    generator = random.Random(os.environ.get("NNUNET_TEST_SEED", 3))
    for moment in moments:
        study = start(tmp_path / "mine.yaml", "--no_compare")
        wait_for(moment.exists, study)
        time.sleep(generator.uniform(0, 0.5))
        kill(study)
        leave_half_files(model / "fold_0" / "validation")
    finished = (model / "fold_0" / checkpoint.FINAL).stat().st_mtime_ns
    code, output = run(tmp_path / "mine.yaml", "--no_compare")
    assert code == 0, output
    assert "1 of 2 trainings are finished" in output
    assert (model / "fold_0" / checkpoint.FINAL).stat().st_mtime_ns == finished
    assert sorted(path.name for path in (tmp_path / "mine" / "logs").iterdir()) == [
        "unet__seed_5__fold_0.log",
        "unet__seed_5__fold_1.log",
    ]

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "uninterrupted"))
    for fold in (0, 1):
        run_training(NAME, "2d", fold, device=torch.device("cpu"), seed=5, **LENGTH)
    torch.testing.assert_close(results_of(model), results_of(tmp_path / "uninterrupted" / MODEL), rtol=0, atol=0)


def test_a_training_that_fails_does_not_stop_the_others(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_text("no weights")
    models = "  broken: {pretrained_weights: broken.pth}\n  unet:\n"
    (tmp_path / "mine.yaml").write_text(STUDY.replace("  unet:\n", models).replace("folds: [0, 1]", "folds: [0]"))
    code, output = run(tmp_path / "mine.yaml")
    *_, failure, last = output.splitlines()
    assert code == 1, output
    assert failure.startswith(f"FAILED broken, seed 5, fold 0: error: The checkpoint {tmp_path}/broken.pth is damaged")
    assert last.startswith("error: 1 of 2 trainings failed: broken, seed 5, fold 0; the same command tries them again")
    assert (tmp_path / "mine/trainings/unet/seed_5" / MODEL / "fold_0/validation/summary.json").is_file()
