"""Fault 8: batches that give a loss of NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.faults.conftest import one_line

WORDS = ("777", "2d", "0", "-device", "cpu")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Counts the training steps; those that `spoiled` names get an image of NaN."""
    state = {"taken": 0, "spoiled": lambda number: False}
    step = nnUNetTrainer.train_step

    def counted(self: nnUNetTrainer, batch: dict) -> dict:
        state["taken"] += 1
        if state["spoiled"](state["taken"]):
            batch = {**batch, "data": torch.full_like(batch["data"], torch.nan)}
        return step(self, batch)

    monkeypatch.setattr(nnUNetTrainer, "train_step", counted)
    yield state


def checkpoints(results: Path) -> dict[str, dict]:
    return {path.name: load_checkpoint(path) for path in results.rglob("*.pth")}


def test_one_spoiled_batch_is_skipped(
    tiny_images: Path, nnunet_folders: dict, short_training: Callable, steps: dict, run: Callable, caplog
) -> None:
    steps["spoiled"] = lambda number: number == 3
    code, stderr = run(run_training_entry, *WORDS)
    assert code == 0, stderr
    assert caplog.text.count("Step skipped") == 1
    saved = checkpoints(nnunet_folders["nnUNet_results"])
    assert checkpoint.FINAL in saved
    for content in saved.values():
        assert all(bool(weights.isfinite().all()) for weights in content["network_weights"].values())


def test_a_training_that_only_gets_such_batches_ends(
    tiny_images: Path, nnunet_folders: dict, short_training: Callable, steps: dict, run: Callable
) -> None:
    short_training(epochs=5, iterations=20)
    steps["spoiled"] = lambda number: True
    code, stderr = run(run_training_entry, *WORDS)
    assert code == 5
    one_line(stderr, "Training diverged: 10 steps in a row")
    assert steps["taken"] == 10
    assert checkpoints(nnunet_folders["nnUNet_results"]) == {}


def test_a_training_that_diverges_keeps_its_last_good_weights(
    tiny_images: Path, nnunet_folders: dict, short_training: Callable, steps: dict, run: Callable
) -> None:
    short_training(epochs=5, iterations=12)
    steps["spoiled"] = lambda number: number > 12
    code, stderr = run(run_training_entry, *WORDS)
    assert code == 5
    one_line(stderr, "Training diverged")
    saved = checkpoints(nnunet_folders["nnUNet_results"])
    assert checkpoint.FINAL not in saved
    assert saved
    assert {content["current_epoch"] for content in saved.values()} == {1}
