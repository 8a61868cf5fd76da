"""The life of a trainer in short: it trains, saves, is resumed, and its model predicts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.trainer_setup import get_trainer_from_args, maybe_load_checkpoint
from tests.training.tiny_volumes import CONFIGURATION, NAME, PATCH

ITERATIONS = 2
_CPU = torch.device("cpu")


def make(trainer_name: str, epochs: int, *, continues: bool = False) -> Any:
    """Trainer of fold 0 of the tiny volumes, found by its name as the training command does."""
    with mock.patch("torch.cuda.is_available", return_value=True) if "Benchmark" in trainer_name else _nothing():
        trainer = get_trainer_from_args(NAME, CONFIGURATION, 0, trainer_name, continue_training=continues, device=_CPU)
    trainer.num_epochs = epochs
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = ITERATIONS, 1
    trainer.plot_network_architecture = lambda: None
    trainer.logger.plot_progress_png = lambda folder: None
    return trainer


def train(trainer_name: str) -> Any:
    """Trains one epoch and returns the trainer; its checkpoint, or its benchmark's result, is written."""
    trainer = make(trainer_name, 1)
    with mock.patch("torch.cuda.get_device_name", return_value="none"):
        trainer.run_training()
    folder = Path(trainer.output_folder)
    written = "benchmark_result.json" if "Benchmark" in trainer_name else "checkpoint_final.pth"
    assert (folder / written).is_file(), f"{written} is missing"
    assert np.isfinite(trainer.logger.get_value("train_losses", None)).all()
    return trainer


def resume(trained: Any) -> None:
    """Continues a finished epoch with a second one, from the same weights."""
    resumed = make(type(trained).__name__, 2, continues=True)
    maybe_load_checkpoint(resumed, True, False)
    assert resumed.current_epoch == 1
    before, after = trained.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(resumed.optimizer.state_dict()["state"]) == len(trained.optimizer.state_dict()["state"])
    resumed.run_training()
    assert resumed.current_epoch == 2
    assert len(resumed.logger.get_value("train_losses", None)) == 2
    assert any(not torch.equal(before[name], value) for name, value in resumed.network.state_dict().items())


def predict(trained: Any) -> None:
    """Rebuilds the model from its folder alone and predicts a volume of one patch."""
    predictor = nnUNetPredictor(device=_CPU, use_mirroring=False, allow_tqdm=False, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(trained.output_folder_base, (0,), "checkpoint_final.pth")
    size = trained.configuration_manager.patch_size
    logits = predictor.predict_logits_from_preprocessed_data(torch.zeros((1, *size)))
    assert tuple(logits.shape) == (3, *size)
    assert size[0] >= PATCH
    assert torch.isfinite(logits).all()


@contextlib.contextmanager
def _nothing() -> Any:
    yield
