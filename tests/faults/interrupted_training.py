"""A training of the tiny 2-D dataset that ends, as if killed, when an epoch begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

WORDS = ("777", "2d", "0", "-device", "cpu")


class Killed(Exception):
    pass


def fold_of(results: Path) -> Path:
    """Folder of the fold that `WORDS` trains."""
    return results / "Dataset777_Tiny" / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0"


def interrupt(monkeypatch: pytest.MonkeyPatch, *words: str, epoch: int) -> None:
    """Trains with the words of a command line until `epoch` begins."""
    begin = nnUNetTrainer.on_epoch_start

    def start_epoch(trainer: nnUNetTrainer) -> None:
        if trainer.current_epoch == epoch:
            raise Killed
        begin(trainer)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(nnUNetTrainer, "on_epoch_start", start_epoch)
        run_training_entry([*WORDS, *words])
