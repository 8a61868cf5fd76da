"""Fault 42: a long training leaks neither memory nor files."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tests.faults.injection import times

LARGEST_SLOPE = {True: 1.0, False: 0.1}  # MB per epoch; a short run is still filling caches


@pytest.mark.slow
def test_memory_and_open_files_stay(
    tiny_images: Path, short_training: Callable, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs, warm_up = times(25, 300), times(10, 50)
    short_training(epochs=epochs, iterations=2, save_every=5)
    process, memory, files = psutil.Process(), [], []
    end_of_epoch = nnUNetTrainer.on_epoch_end

    def measured(self: nnUNetTrainer) -> None:
        end_of_epoch(self)
        gc.collect()
        memory.append(process.memory_info().rss / 2**20)
        files.append(process.num_fds())

    monkeypatch.setattr(nnUNetTrainer, "on_epoch_end", measured)
    code, stderr = run(run_training_entry, "777", "2d", "0", "-device", "cpu")
    assert code == 0, stderr
    assert len(memory) == epochs
    slope = np.polyfit(np.arange(epochs - warm_up), memory[warm_up:], 1)[0]
    assert slope < LARGEST_SLOPE[epochs < 100], memory
    assert len(set(files[warm_up:])) == 1, files
