"""Whole trainings on tiny data: the command, resuming, added arguments, divergence."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2.errors import DivergedError, UsageError
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run import run_training
from nnunetv2.training.logging.metric_lines import read_metrics
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.training.tiny_dataset import DATASET_JSON, Schedule, make_trainer, write_tiny_dataset

pytestmark = pytest.mark.integration

EXTERNAL_TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class WidthTrainerForTests(nnUNetTrainer):
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch = 2, 2, 1

    def __init__(self, plans, configuration, fold, dataset_json, device=None, width=4):
        self.width = width
        super().__init__(plans, configuration, fold, dataset_json, device)

    def adapt_plans(self, plans, configuration):
        plans["configurations"][configuration]["architecture"]["arch_kwargs"]["features_per_stage"] = [self.width] * 3
        return plans
"""


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path]) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


@pytest.fixture
def width_trainer(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "trainers"
    folder.mkdir()
    (folder / f"width_trainer_{abs(hash(str(tmp_path)))}.py").write_text(EXTERNAL_TRAINER)
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    return "WidthTrainerForTests"


def _train_epochs(trainer: nnUNetTrainer, last_epoch: int) -> None:
    """`run_training` up to an epoch, as if the process ended there."""
    trainer.on_train_start()
    while trainer.current_epoch < last_epoch:
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        trainer.on_train_epoch_end(
            [trainer.train_step(next(trainer.dataloader_train)) for _ in range(trainer.num_iterations_per_epoch)]
        )
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
        trainer.on_epoch_end()


def test_command_trains_and_validates(
    dataset: Path, nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, seeded: int
) -> None:
    monkeypatch.setattr(nnUNetTrainer, "num_epochs", 3)
    monkeypatch.setattr(nnUNetTrainer, "num_iterations_per_epoch", 3)
    monkeypatch.setattr(nnUNetTrainer, "num_val_iterations_per_epoch", 1)
    monkeypatch.setattr(nnUNetTrainer, "save_every", 1)
    assert run_training.run_training_entry(["777", "2d", "0", "-device", "cpu", "--npz"]) == 0

    model = nnunet_folders["nnUNet_results"] / dataset.name / "nnUNetTrainer__nnUNetPlans__2d"
    fold = model / "fold_0"
    assert sorted(path.name for path in model.iterdir()) == [
        "dataset.json",
        "dataset_fingerprint.json",
        "fold_0",
        "plans.json",
    ]
    names = sorted(path.name for path in fold.iterdir() if not path.name.startswith("training_log_"))
    assert names == [
        ".lock",  # empty
        "checkpoint_best.pth",
        "checkpoint_final.pth",  # checkpoint_latest.pth was written after each epoch and removed at the end
        "debug.json",
        "metrics.csv",
        "metrics.jsonl",
        "network_architecture.txt",
        "progress.png",
        "validation",
    ]
    (log,) = fold.glob("training_log_*.txt")
    assert "Epoch 2" in log.read_text()
    assert "Mean Validation Dice" in log.read_text()
    splits = json.loads((dataset / "splits_final.json").read_text())
    predicted = {path.stem for path in (fold / "validation").glob("*.png")}
    assert predicted == set(splits[0]["val"]) == {path.stem for path in (fold / "validation").glob("*.npz")}
    assert len(json.loads((fold / "validation" / "summary.json").read_text())["metric_per_case"]) == len(predicted)

    content = load_checkpoint(fold / "checkpoint_final.pth")
    assert content["current_epoch"] == 3
    assert content["trainer_name"] == "nnUNetTrainer"
    assert {key: len(values) for key, values in content["logging"].items()} == dict.fromkeys(content["logging"], 3)

    (fold / "validation" / "summary.json").unlink()
    assert run_training.run_training_entry(["777", "2d", "0", "-device", "cpu", "--val"]) == 0
    assert (fold / "validation" / "summary.json").is_file()

    # Killed between the best checkpoint of the last epoch and the final one.
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_best.pth")
    assert run_training.run_training_entry(["777", "2d", "0", "-device", "cpu", "--c"]) == 0
    assert (fold / "checkpoint_final.pth").is_file()
    assert read_metrics(fold / "metrics.jsonl")[-1]["checkpoint"] == "final"


def test_trainer_with_an_added_argument_trains_saves_resumes_and_predicts(
    width_trainer: str, dataset: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make(width: int) -> Any:
        return run_training.get_trainer_from_args(
            "777", "2d", 0, width_trainer, device=torch.device("cpu"), trainer_kwargs={"width": width}
        )

    trainer = make(6)
    trainer.save_every = 1
    _train_epochs(trainer, 1)
    assert load_checkpoint(Path(trainer.output_folder) / checkpoint.LATEST)["init_args"]["width"] == 6

    resumed = make(6)
    run_training.maybe_load_checkpoint(resumed, continue_training=True, validation_only=False)
    assert resumed.current_epoch == 1
    torch.testing.assert_close(resumed.network.state_dict(), trainer.network.state_dict())
    resumed.run_training()
    final = load_checkpoint(Path(resumed.output_folder) / checkpoint.FINAL)
    assert final["current_epoch"] == 2
    assert final["init_args"]["width"] == 6

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,), checkpoint.FINAL)
    image = np.random.default_rng(0).normal(size=(1, 1, 40, 40)).astype(np.float32)
    segmentation = predictor.predict_single_npy_array(image, {"spacing": [999.0, 1.0, 1.0]})
    assert segmentation.shape == (1, 40, 40)

    with pytest.raises(UsageError, match=r"features_per_stage: \[6, 6, 6\] there, \[8, 8, 8\] now"):
        make(8).run_training()


def test_resumed_training_goes_on_with_the_same_optimiser_and_history(dataset: Path) -> None:
    trainer = make_trainer(nnUNetTrainer, Schedule(epochs=3))
    trainer.save_every = 1
    _train_epochs(trainer, 2)
    latest = str(Path(trainer.output_folder) / checkpoint.LATEST)
    resumed = make_trainer(nnUNetTrainer, Schedule(epochs=3))
    resumed.load_checkpoint(latest)
    assert resumed.current_epoch == 2
    assert resumed._best_ema == trainer._best_ema
    assert resumed.logger.get_checkpoint() == trainer.logger.get_checkpoint()
    assert resumed.inference_allowed_mirroring_axes == (0, 1)
    state, restored = trainer.optimizer.state_dict(), resumed.optimizer.state_dict()
    torch.testing.assert_close(restored["state"], state["state"])
    from_content = make_trainer(nnUNetTrainer, Schedule(epochs=3))
    from_content.load_checkpoint(load_checkpoint(latest))
    torch.testing.assert_close(from_content.network.state_dict(), trainer.network.state_dict())


class _Diverging(nnUNetTrainer):
    good_steps = 0

    def forward_loss(self, data: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
        loss, output = super().forward_loss(data, target)
        if self.network.training:
            self.steps = getattr(self, "steps", 0) + 1
            loss = loss * (1 if self.steps <= self.good_steps else torch.nan)
        return loss, output


def test_loss_that_is_never_finite_stops_the_run_and_no_checkpoint_is_written(dataset: Path) -> None:
    trainer = make_trainer(_Diverging, Schedule(epochs=50, iterations=4))
    with pytest.raises(DivergedError, match="no step of epoch 0 had a finite loss"):
        trainer.run_training()
    assert list(Path(trainer.output_folder).glob("*.pth")) == []


def test_divergence_later_on_keeps_the_best_checkpoint_so_far(dataset: Path) -> None:
    trainer = make_trainer(_Diverging, Schedule(epochs=50, iterations=12))
    trainer.good_steps = 12
    with pytest.raises(DivergedError, match="10 steps in a row"):
        trainer.run_training()
    assert [path.name for path in Path(trainer.output_folder).glob("*.pth")] == [checkpoint.BEST]
    assert load_checkpoint(Path(trainer.output_folder) / checkpoint.BEST)["current_epoch"] == 1


def test_single_bad_batch_is_skipped(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    class OneBadBatch(nnUNetTrainer):
        def forward_loss(self, data: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
            loss, output = super().forward_loss(data, target)
            self.calls = getattr(self, "calls", 0) + 1
            return (loss * torch.nan if self.calls == 2 else loss), output

    trainer = make_trainer(OneBadBatch, Schedule(epochs=1, iterations=4))
    with caplog.at_level(logging.WARNING):
        trainer.run_training()
    assert caplog.text.count("Step skipped") == 1
    final = load_checkpoint(Path(trainer.output_folder) / checkpoint.FINAL)
    assert all(bool(weights.isfinite().all()) for weights in final["network_weights"].values())
    assert np.isfinite(final["logging"]["train_losses"]).all()


def test_dataset_json_is_what_prediction_finds(dataset: Path) -> None:
    trainer = make_trainer(nnUNetTrainer, Schedule(epochs=1, iterations=1))
    trainer.on_train_start()
    model = Path(trainer.output_folder_base)
    assert json.loads((model / "dataset.json").read_text()) == DATASET_JSON
    assert json.loads((model / "plans.json").read_text()) == trainer.plans_manager.plans


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize(("number", "configuration"), [(901, "2d_tiny"), (903, "3d_tiny")])
def test_seeded_training_repeats_upstreams(
    oracle_recorded: Path,
    nnunet_folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    configuration: str,
) -> None:
    """Two epochs of five steps: losses, final weights and validation scores are those that upstream recorded."""
    monkeypatch.setenv("nnUNet_preprocessed", str(oracle_recorded / "preprocessed"))
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(0)
    trainer = run_training.get_trainer_from_args(str(number), configuration, 0, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 5, 2
    losses: list[float] = []
    step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda batch: (out := step(batch), losses.append(float(out["loss"])))[0])
    trainer.run_training()
    trainer.perform_actual_validation()

    recorded = json.loads((oracle_recorded / f"bench_train_{number}_{configuration}.json").read_text())
    np.testing.assert_allclose(losses[:5], recorded["first_losses"], atol=5e-5)
    (theirs,) = (oracle_recorded / "results").glob(f"Dataset{number}_*/*__{configuration}/fold_0")
    ours = load_checkpoint(Path(trainer.output_folder) / checkpoint.FINAL)
    upstream = load_checkpoint(theirs / checkpoint.FINAL)
    assert list(ours) == [*upstream, "num_epochs", "trained_with"]
    assert list(ours["network_weights"]) == list(upstream["network_weights"])
    # The blur adds in another order than upstream's: images are equal to 2e-6, and weights after ten steps to this.
    torch.testing.assert_close(ours["network_weights"], dict(upstream["network_weights"]), atol=5e-4, rtol=1e-4)
    np.testing.assert_allclose(
        ours["logging"]["ema_fg_dice"], [float(value) for value in upstream["logging"]["ema_fg_dice"]], atol=1e-4
    )
    our_scores, their_scores = (
        json.loads((folder / "validation" / "summary.json").read_text())["foreground_mean"]
        for folder in (Path(trainer.output_folder), theirs)
    )
    assert our_scores["Dice"] == pytest.approx(their_scores["Dice"], abs=1e-3)


@pytest.mark.oracle
def test_training_goes_on_from_upstreams_checkpoint(
    oracle_recorded: Path, nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(oracle_recorded / "preprocessed"))
    (path,) = (oracle_recorded / "results").glob("Dataset901_*/*/fold_0/checkpoint_final.pth")
    trainer = run_training.get_trainer_from_args("901", "2d_tiny", 0, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 3, 1, 1
    trainer.load_checkpoint(str(path))
    assert trainer.current_epoch == 2
    trainer.run_training()
    final = load_checkpoint(Path(trainer.output_folder) / checkpoint.FINAL)
    assert final["current_epoch"] == 3
    assert len(final["logging"]["train_losses"]) == 3
