"""Length and precision that the command gives a training: in force, kept in its checkpoints, not changed later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.run.run_training import run_training
from nnunetv2.run.trainer_setup import maybe_load_checkpoint
from nnunetv2.training.logging.metric_files import JSONL, read_metrics
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f
from nnunetv2.training.setup.budget import Budget, in_force, prolonged, resumed_budget
from nnunetv2.training.state import checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from tests.training.nnUNetTrainer.test_nnUNetTrainer_m2f import SMALL
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

CPU = torch.device("cpu")


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path]) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


def resume(trainer: nnUNetTrainer, stored: dict[str, Any] | None) -> None:
    """As loading a checkpoint with this budget does."""
    trainer.keep_to_budget(resumed_budget(trainer.budget, stored, "latest.pth", device=CPU))


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_epochs", 0), ("num_iterations_per_epoch", 2.5), ("num_val_iterations_per_epoch", True), ("precision", "f")],
)
def test_what_no_training_can_have_is_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} is {value!r}; accepted are"):
        Budget(**{name: value})


def test_what_is_not_given_is_the_trainers():
    trainer = make_trainer(nnUNetTrainer)
    trainer.keep_to_budget(Budget())
    assert trainer.budget is None
    trainer.keep_to_budget(Budget(num_epochs=3, precision="bf16"))
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.precision) == (3, 250, "bf16")


@pytest.mark.parametrize(
    ("given", "stored", "expected"),
    [
        ({}, None, 1000),
        ({}, {"num_epochs": 3}, 3),
        ({"num_epochs": 3}, {"num_epochs": 3, "a_key_of_later": 1}, 3),
        ({"num_epochs": 1000}, None, 1000),
        ({"num_epochs": 5}, {"num_epochs": 3}, 5),
        ({"num_epochs": 5}, None, 5),
        ({"precision": "fp32"}, {"num_epochs": 3}, 3),
    ],
)
def test_a_training_goes_on_with_its_length(given, stored, expected):
    trainer = make_trainer(nnUNetTrainer)
    trainer.keep_to_budget(Budget(**given))
    resume(trainer, stored)
    assert trainer.num_epochs == expected
    assert (trainer.budget is None) == (not given and stored is None)


@pytest.mark.parametrize(
    ("given", "stored", "message"),
    [
        (
            {"num_iterations_per_epoch": 5},
            {"num_iterations_per_epoch": 3},
            "in latest.pth was started with num_iterations_per_epoch 3 and cannot go on with --num_it",
        ),
        ({"num_iterations_per_epoch": 5}, None, "num_iterations_per_epoch 250 and cannot go on with --num_it"),
        ({"precision": "bf16"}, {"num_epochs": 5}, "precision None and cannot go on with --precision bf16"),
    ],
)
def test_a_training_does_not_go_on_with_other_epochs(given, stored, message):
    trainer = make_trainer(nnUNetTrainer)
    trainer.keep_to_budget(Budget(**given))
    with pytest.raises(UsageError, match=message):
        resume(trainer, stored)


def test_a_training_cannot_end_before_what_is_trained():
    own = in_force({"num_epochs": 4}, {"num_epochs": 1000}, None)
    assert resumed_budget(own, None, "latest.pth", device=CPU, trained_epochs=4).num_epochs == 4
    with pytest.raises(UsageError, match="in latest.pth has 5 epochs already and cannot go on with --num_epochs 4"):
        resumed_budget(own, None, "latest.pth", device=CPU, trained_epochs=5)


@pytest.mark.parametrize(("before", "trained"), [(None, 3), (6, 3), (3, 6), (6, 6)])
def test_only_another_length_is_worth_a_line(before, trained):
    assert prolonged(before, 6, trained) is None
    assert "6 epochs instead of 5: from epoch 3 on, the learning rate follows" in prolonged(5, 6, 3)


def test_a_schedule_that_was_made_for_another_length_is_refused():
    trainer = make_trainer(nnUNetTrainer)
    trainer.was_initialized = True
    with pytest.raises(
        UsageError, match="has num_epochs=3 and this trainer was initialised without; load the checkpoint"
    ):
        trainer.load_checkpoint(
            {"network_weights": {}, "current_epoch": 1, "logging": {}, "_best_ema": None, "budget": {"num_epochs": 3}}
        )


def test_learning_rates_follow_the_length_before_and_after_an_interruption(dataset):
    trainer = make_trainer(nnUNetTrainer)
    trainer.keep_to_budget(Budget(num_epochs=4, num_iterations_per_epoch=1, num_val_iterations_per_epoch=1))
    trainer.initialize()
    trainer.current_epoch = 1
    trainer.lr_scheduler.step(2)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * 0.5**0.9)
    Path(trainer.output_folder).mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(str(Path(trainer.output_folder, checkpoint.LATEST)))

    resumed = make_trainer(nnUNetTrainer)
    maybe_load_checkpoint(resumed, True, False)
    assert (resumed.num_epochs, resumed.num_iterations_per_epoch, resumed.current_epoch) == (4, 1, 2)
    resumed.lr_scheduler.step(2)
    assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * 0.5**0.9)
    assert resumed.checkpoint_content()["budget"] == trainer.checkpoint_content()["budget"]


@pytest.mark.slow
def test_settings_say_what_the_flags_say(dataset):
    trainer = make_trainer(nnUNetTrainer_m2f, m2f_overrides=[*SMALL, "training.num_iterations_per_epoch=7"])
    with pytest.raises(
        UsageError, match="training.num_iterations_per_epoch=7 contradicts --num_iterations_per_epoch 9"
    ):
        trainer.keep_to_budget(Budget(num_iterations_per_epoch=9))
    trainer.keep_to_budget(Budget(precision="bf16", num_iterations_per_epoch=7))
    assert trainer.trainer_config["training"]["precision"] == trainer.config.training.precision == "bf16"
    assert trainer.precision == "bf16"


@pytest.mark.slow
def test_a_resumed_vision_transformer_keeps_its_length(dataset):
    def make(*words: str) -> Any:
        return make_trainer(nnUNetTrainer_m2f, m2f_overrides=[*(w for w in SMALL if "training.num_" not in w), *words])

    trainer = make()
    trainer.keep_to_budget(Budget(num_epochs=3, num_iterations_per_epoch=2, num_val_iterations_per_epoch=1))
    trainer.initialize()
    Path(trainer.output_folder).mkdir(parents=True, exist_ok=True)
    latest = Path(trainer.output_folder, checkpoint.LATEST)
    trainer.save_checkpoint(str(latest))
    resumed = make()
    resumed.load_checkpoint(latest)
    assert resumed.lr_scheduler.total_iter == 6
    assert resumed.trainer_config["training"]["num_epochs"] == 3
    resumed = make("training.num_epochs=5")
    resumed.load_checkpoint(latest)
    assert (resumed.num_epochs, resumed.lr_scheduler.total_iter) == (5, 10)


@pytest.mark.slow
def test_commands_keep_the_length_and_refuse_another_one(dataset):
    def train(**options: Any) -> Path:
        run_training(777, "2d", 0, device=CPU, **options)
        return next(Path(dataset.parents[1], "nnUNet_results").glob("*/*/fold_0"))

    length = {"num_epochs": 2, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1}
    content = load_checkpoint(train(**length) / checkpoint.FINAL)
    assert (content["current_epoch"], content["budget"]) == (2, length)
    train(continue_training=True)  # finished: validates again, where 1000 epochs would follow without the stored length
    train(only_run_validation=True, num_epochs=2)
    with pytest.raises(UsageError, match="started with num_iterations_per_epoch 1 and cannot go on with --num_it"):
        train(continue_training=True, num_iterations_per_epoch=3)


@pytest.mark.slow
def test_a_finished_training_is_prolonged(dataset, capsys):
    def train(**options: Any) -> dict[str, Any]:
        run_training(777, "2d", 0, device=CPU, seed=5, **options)
        return load_checkpoint(fold / checkpoint.FINAL)

    fold = Path(dataset.parents[1], "nnUNet_results", dataset.name, "nnUNetTrainer__nnUNetPlans__2d", "fold_0")
    length = {"num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1}
    train(num_epochs=2, **length)
    capsys.readouterr()
    content = train(continue_training=True, num_epochs=4)
    line = (
        "The training has 4 epochs instead of 2: from epoch 2 on, the learning rate follows the schedule of a training"
    )
    assert capsys.readouterr().out.count(line) == 1
    assert (content["current_epoch"], content["budget"]["num_epochs"]) == (4, 4)
    rates = content["logging"]["lrs"]
    assert rates == pytest.approx([1e-2 * (1 - part) ** 0.9 for part in (0, 1 / 2, 2 / 4, 3 / 4)])
    epochs = [line["epoch"] for line in read_metrics(fold / JSONL) if line["type"] == "epoch"]
    assert epochs == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="has 4 epochs already and cannot go on with --num_epochs 3"):
        train(continue_training=True, num_epochs=3)
