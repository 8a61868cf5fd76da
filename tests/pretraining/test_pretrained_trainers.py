"""The trainers for nnssl's checkpoints: settings, schedules, and what they load, as recorded from upstream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError, UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.pretraining import pretrained_trainers
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

NAMES = [
    name
    for name, value in vars(pretrained_trainers).items()
    if isinstance(value, type) and issubclass(value, pretrained_trainers.PretrainedTrainer)
]
DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}, "numTraining": 1,
           "file_ending": ".nii.gz"}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recorded(oracle_recorded: Path) -> Path:
    return oracle_recorded / "nnssl"


@pytest.fixture
def without_data(nnunet_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnUNetTrainer, "_find_dataset_class", lambda self: None)


def trainer_of(recorded: Path, name: str, checkpoint: str | None = "as planned", **info: Any) -> nnUNetTrainer:
    facts = json.loads((recorded / "trainers.json").read_text())["trainers"][name]
    plans = json.loads((recorded / "plans" / f"902__{facts['plans']}.json").read_text())
    path = plans["pretrain_info"]["checkpoint_path"]
    if checkpoint == "as planned":
        kind = "primus" if Path(path).stem == "primus" else "cnn"
        checkpoint = str(recorded / "checkpoints" / f"{kind}.pth")
    plans["pretrain_info"] |= {"checkpoint_path": checkpoint, **info}
    return recursive_find_trainer_class_by_name(name)(plans, "3d_fullres", 0, DATASET, CPU)


@pytest.mark.oracle
def test_all_of_upstreams_trainers_are_there(recorded: Path) -> None:
    assert sorted(NAMES) == sorted(json.loads((recorded / "trainers.json").read_text())["trainers"])


@pytest.mark.oracle
@pytest.mark.parametrize("name", NAMES)
def test_settings_and_schedules_are_upstreams(recorded: Path, name: str, without_data: None) -> None:
    facts = json.loads((recorded / "trainers.json").read_text())["trainers"][name]
    rates = np.load(recorded / "learning_rates.npz")
    for variant, checkpoint in (("pretrained", "as planned"), ("scratch", None)):
        trainer = trainer_of(recorded, name, checkpoint)
        trainer.initialize()
        of_variant = facts[variant]
        assert trainer.initial_lr == of_variant["initial_lr"]
        found = []
        first_optimizer = trainer.optimizer
        for epoch in range(trainer.num_epochs):
            trainer.current_epoch = epoch
            trainer._enter_stage()
            trainer.lr_scheduler.step(epoch)
            found.append(trainer.optimizer.param_groups[0]["lr"])
        np.testing.assert_allclose(found, rates[f"{name}__{variant}"], rtol=1e-9, atol=0)
        assert trainer.optimizer is first_optimizer
        for epoch, stage in of_variant["stage_on_resume"].items():
            trainer.current_epoch = int(epoch)
            assert trainer.get_stage() == stage
        optimizer = of_variant["stages"]["train"]["optimizer"]
        assert type(trainer.optimizer).__name__ == optimizer["class"]
        same = ("betas", "eps", "weight_decay", "amsgrad", "momentum", "nesterov")
        defaults = {key: value for key, value in optimizer["defaults"].items() if key in same}
        assert defaults == {
            key: list(v) if isinstance(v := trainer.optimizer.defaults[key], tuple) else v for key in defaults
        }
        trained = [weight for weight in trainer.network.parameters() if weight.requires_grad]
        assert len(trained) == of_variant["stages"]["warmup_all"]["n_trainable"]
        assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == len(trained)
    axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[-1]
    assert [None if axes is None else list(axes)] == [facts["mirror_axes"]]
    assert trainer.inference_allowed_mirroring_axes == axes
    assert (trainer.num_epochs, trainer.warmup_duration_whole_net) == (facts["num_epochs"], facts["warmup"])
    assert (trainer.weight_decay, trainer.gradient_clip_norm) == (facts["weight_decay"], facts["clip_grad_norm"][0])
    assert (trainer.configuration_manager.batch_size, list(trainer.configuration_manager.patch_size)) == (
        facts["batch_size"],
        facts["patch_size"],
    )
    assert (trainer.enable_deep_supervision, type(trainer.network).__name__) == (False, facts["network"])


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["PretrainedTrainer", "DynamicPretrainedTrainer", "PretrainedTrainer_Primusx"])
def test_weights_are_loaded_and_said_so(recorded: Path, name: str, without_data: None) -> None:
    trainer = trainer_of(recorded, name)
    trainer.initialize()
    (log,) = Path(trainer.output_folder).glob("training_log_*")
    assert "Pre-trained weights of " in log.read_text()
    assert " tensors copied, " in log.read_text()
    names = json.loads((recorded / "trainers.json").read_text())["parameters"]
    shapes = names[json.loads((recorded / "trainers.json").read_text())["trainers"][name]["plans"]]
    assert {key: list(value.shape) for key, value in trainer.network.named_parameters()} == shapes


@pytest.mark.oracle
def test_a_missing_checkpoint_stops_the_training(recorded: Path, without_data: None) -> None:
    with pytest.raises(DataError, match="There is no checkpoint .*missing.pth"):
        trainer_of(recorded, "PretrainedTrainer", "missing.pth").initialize()


@pytest.mark.oracle
def test_other_plans_are_refused(recorded: Path, nnunet_folders: dict[str, Path]) -> None:
    plans = json.loads((recorded / "plans" / "902__nnUNetPlans.json").read_text())
    with pytest.raises(UsageError, match="trains on plans that were made for a checkpoint, and nnUNetPlans were not"):
        pretrained_trainers.PretrainedTrainer(plans, "3d_fullres", 0, DATASET, CPU)
