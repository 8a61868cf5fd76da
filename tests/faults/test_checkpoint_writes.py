"""Rows 1 and 2: a killed process or a full disk costs no checkpoint that was complete."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dinov3.utils.atomic_files import remove_interrupted_writes
from dinov3.utils.folder_lock import LOCK_FILE
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.logging.metric_files import JSONL, read_metrics
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.faults.conftest import one_line
from tests.faults.injection import largest_file, times
from tests.faults.interrupted_training import WORDS, fold_of, interrupt

Run = Callable[..., tuple[int, str]]


def save_until_killed(path: Path, saved: multiprocessing.connection.Connection) -> None:
    step = 0
    while True:
        step += 1
        content = {"current_epoch": step, "weights": torch.full((300_000,), float(step))}
        checkpoint.write(content, path)
        saved.send(step)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a forked child starts at once")
def test_kills_while_saving_lose_at_most_the_save_in_progress(tmp_path: Path) -> None:
    """Row 1. One child saves over and over; it is killed at a random moment, and the next child goes on there."""
    context, generator, strays = multiprocessing.get_context("fork"), np.random.default_rng(0), 0
    for _ in range(times(4, 50)):
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=save_until_killed, args=(tmp_path / checkpoint.LATEST, there))
        child.start()
        there.close()
        acknowledged = [here.recv(), here.recv()]  # from now on, there is a previous checkpoint
        time.sleep(generator.uniform(0, 0.1))
        child.kill()
        child.join()
        while here.poll():
            try:
                acknowledged.append(here.recv())
            except EOFError:
                break
        found = checkpoint.checkpoint_to_continue(tmp_path)
        content = load_checkpoint(found)
        assert content["current_epoch"] >= acknowledged[-1]
        assert bool((content["weights"] == content["current_epoch"]).all())
        previous = load_checkpoint(tmp_path / checkpoint.PREVIOUS)
        assert previous["current_epoch"] <= content["current_epoch"]
        strays += len(list(tmp_path.glob(".*")))
        remove_interrupted_writes(tmp_path, min_age=0)
        assert sorted(os.listdir(tmp_path)) == [checkpoint.PREVIOUS, checkpoint.LATEST]
    assert strays > 0  # some kills met a file half-written


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob(".*") if path.name != LOCK_FILE]


@pytest.fixture
def fold(tiny_images: Path, nnunet_folders: dict[str, Path], short_training: Callable) -> Path:
    return fold_of(nnunet_folders["nnUNet_results"])


def test_the_next_start_removes_what_a_killed_save_left(
    fold: Path, short_training: Callable, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, epoch=2)
    shutil.copy(fold / checkpoint.LATEST, fold / ".0123abcd.tmp.checkpoint_latest.pth")
    code, errors = run(run_training_entry, *WORDS, "--c")
    assert code == 0, errors
    assert not temporary_files(fold)
    assert not list(fold.glob("checkpoint_latest*"))


def limit_hook(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch, epochs: tuple[int, ...], afterwards: Callable = lambda: None
) -> None:
    """Lets no file become larger than `size` bytes while a hook of the trainer runs, in these epochs."""
    hook = getattr(nnUNetTrainer, name)

    def limited(trainer: nnUNetTrainer) -> None:
        if trainer.current_epoch not in epochs:
            hook(trainer)
            return
        with largest_file(size):
            hook(trainer)
        afterwards()

    monkeypatch.setattr(nnUNetTrainer, name, limited)


def test_a_training_outlives_a_disk_that_is_full_for_a_while(
    fold: Path, short_training: Callable, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 2. The space returns: nothing is lost but the saves in between, which are made up for."""
    short_training(epochs=5)
    interrupt(monkeypatch, epoch=2)
    latest = fold / checkpoint.LATEST
    before, seen = latest.read_bytes(), []

    def unchanged() -> None:
        seen.append(latest.read_bytes() == before and not temporary_files(fold))

    limit_hook("on_epoch_end", len(before) // 2, monkeypatch, (2,), unchanged)
    monkeypatch.setattr(nnUNetTrainer, "save_every", 3)  # due after epoch 2, made up for after epoch 3
    written = []
    write = checkpoint.write
    monkeypatch.setattr(
        checkpoint,
        "write",
        lambda content, path: (write(content, path), written.append((Path(path).name, content["current_epoch"]))),
    )
    code, errors = run(run_training_entry, *WORDS, "--c")
    assert code == 0, errors
    assert seen == [True]
    assert (checkpoint.LATEST, 4) in written
    assert (fold / checkpoint.FINAL).is_file()
    log = "".join(path.read_text() for path in fold.glob("training_log_*"))
    assert log.count("could not be written, disk full") >= 1
    assert "tries again after the next epoch" in log
    epochs = [line["epoch"] for line in read_metrics(fold / JSONL) if line["type"] == "epoch"]
    assert epochs == [0, 1, 2, 3, 4]


def test_the_final_save_names_the_full_disk_and_can_be_repeated(
    fold: Path, short_training: Callable, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 2. The space does not return."""
    interrupt(monkeypatch, epoch=2)
    latest = fold / checkpoint.LATEST
    before = latest.read_bytes()
    with monkeypatch.context() as patched:
        limit_hook("on_train_end", len(before) // 2, patched, (3,))
        code, errors = run(run_training_entry, *WORDS, "--c")
    assert code == 1
    one_line(errors, "All epochs are trained", "disk full", "make space", "--c", checkpoint.LATEST)
    assert latest.read_bytes() == before
    assert not (fold / checkpoint.FINAL).exists()
    assert not temporary_files(fold)
    code, errors = run(run_training_entry, *WORDS, "--c")
    assert code == 0, errors
    assert (fold / checkpoint.FINAL).is_file()


def test_no_log_or_picture_on_a_full_disk_ends_a_training(
    fold: Path, short_training: Callable, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 2, with a limit below every file: checkpoint, logs, metrics, picture, and the output of the command."""
    short_training(epochs=1)
    limit_hook("on_epoch_end", 1000, monkeypatch, (0,))
    code, errors = run(run_training_entry, *WORDS)
    assert code == 0, errors
    assert not (fold / "progress.png").exists()
    assert not (fold / checkpoint.BEST).exists()
    assert (fold / checkpoint.FINAL).is_file()
