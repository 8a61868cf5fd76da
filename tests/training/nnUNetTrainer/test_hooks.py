"""The trainer's public face is upstream's: hooks, signatures, attributes, variants, and users' subclasses of old."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainer_onlyMirror01,
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
    nnUNetTrainerNoDeepSupervision,
)
from tests.training.tiny_dataset import DATASET_JSON, make_trainer, tiny_plans, write_tiny_dataset

RECORDED = json.loads((Path(__file__).parents[2] / "recorded" / "training_api.json").read_text())
CPU = torch.device("cpu")
ATTRIBUTES = [
    "network",
    "optimizer",
    "lr_scheduler",
    "loss",
    "grad_scaler",
    "dataloader_train",
    "dataloader_val",
    "output_folder",
    "output_folder_base",
    "preprocessed_dataset_folder",
    "preprocessed_dataset_folder_base",
    "label_manager",
    "plans_manager",
    "configuration_manager",
    "configuration_name",
    "dataset_json",
    "fold",
    "is_ddp",
    "local_rank",
    "device",
    "was_initialized",
    "current_epoch",
    "logger",
    "log_file",
    "inference_allowed_mirroring_axes",
    "dataset_class",
    "is_cascaded",
    "folder_with_segs_from_previous_stage",
    "_best_ema",
    "my_init_kwargs",
    "initial_lr",
    "weight_decay",
    "oversample_foreground_percent",
    "probabilistic_oversampling",
    "num_iterations_per_epoch",
    "num_val_iterations_per_epoch",
    "num_epochs",
    "enable_deep_supervision",
    "num_input_channels",
    "save_every",
    "disable_checkpointing",
]


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path]) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


@pytest.mark.parametrize("hook", RECORDED["hooks"])
def test_hook_has_upstreams_signature(hook: str) -> None:
    recorded = RECORDED["hooks"][hook]
    found = inspect.getattr_static(nnUNetTrainer, hook)
    assert isinstance(found, staticmethod) is recorded.startswith("static ")
    assert list(inspect.signature(getattr(nnUNetTrainer, hook)).parameters) == recorded.removeprefix("static ").split(
        ", "
    )


def test_trainer_has_upstreams_attributes(dataset: Path) -> None:
    trainer = make_trainer(nnUNetTrainer)
    assert [name for name in ATTRIBUTES if not hasattr(trainer, name)] == []


@pytest.mark.parametrize("module", RECORDED["variants"])
def test_variants_have_upstreams_class_names(module: str) -> None:
    imported = importlib.import_module(module)
    assert [
        name for name in RECORDED["variants"][module] if not issubclass(getattr(imported, name), nnUNetTrainer)
    ] == []


def test_epoch_variants_say_their_number_in_their_name() -> None:
    module = importlib.import_module("nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs")
    for name in RECORDED["variants"][module.__name__]:
        assert getattr(module, name).num_epochs == int("".join(filter(str.isdigit, name)))


def test_construction_writes_nothing_and_leaves_its_arguments_alone(
    dataset: Path, nnunet_folders: dict[str, Path]
) -> None:
    plans = tiny_plans() | {"continue_training": False}
    before = copy.deepcopy(plans)
    trainer = nnUNetTrainer(plans, "2d", 0, DATASET_JSON, CPU)
    assert plans == before
    assert "continue_training" not in trainer.my_init_kwargs["plans"]
    assert list(nnunet_folders["nnUNet_results"].iterdir()) == []


def test_trainer_can_be_made_without_any_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    monkeypatch.delenv("nnUNet_results", raising=False)
    trainer = make_trainer(nnUNetTrainer)
    assert trainer.output_folder is None
    assert trainer.preprocessed_dataset_folder is None
    assert trainer.log_file is None


def test_unknown_configuration_is_refused(dataset: Path) -> None:
    with pytest.raises(UsageError, match="no configuration '3d_fullres'.*they have 2d"):
        nnUNetTrainer(tiny_plans(), "3d_fullres", 0, DATASET_JSON, CPU)


class OldStyleTrainer(nnUNetTrainer):
    """As users write them: five arguments handed on, then numbers set."""

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CPU
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 7
        self.initial_lr = 3e-4
        self.enable_deep_supervision = False

    def configure_optimizers(self) -> tuple[Any, Any]:
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.num_epochs)


def test_old_style_subclass_sets_numbers_after_the_base_constructor(dataset: Path) -> None:
    trainer = make_trainer(OldStyleTrainer)
    trainer.initialize()
    assert (trainer.num_epochs, nnUNetTrainer.num_epochs) == (7, 1000)
    assert trainer.optimizer.param_groups[0]["lr"] == 3e-4
    assert list(trainer.my_init_kwargs) == ["plans", "configuration", "fold", "dataset_json", "device"]


class SixArgumentTrainer(nnUNetTrainer):
    @staticmethod
    def build_network_architecture(  # noqa: PLR0913
        architecture_class_name: str,
        arch_init_kwargs: dict,
        arch_init_kwargs_req_import: list,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        assert architecture_class_name.endswith("PlainConvUNet")
        assert arch_init_kwargs["n_stages"] == 3
        assert "conv_op" in arch_init_kwargs_req_import
        return torch.nn.Conv2d(num_input_channels, num_output_channels, 1)


def test_network_hook_of_six_arguments_works_with_a_warning(dataset: Path) -> None:
    trainer = make_trainer(SixArgumentTrainer)
    with pytest.warns(DeprecationWarning, match="SixArgumentTrainer.build_network_architecture.*old signature"):
        trainer.initialize()
    assert trainer.network.out_channels == 3
    trainer.set_deep_supervision_enabled(True)  # a network without the switch is left alone


class WidthTrainer(nnUNetTrainer):
    def __init__(self, *args: Any, width: int = 4, **kwargs: Any) -> None:
        self.width = width
        super().__init__(*args, **kwargs)

    def adapt_plans(self, plans: dict, configuration: str) -> dict:
        plans["configurations"][configuration]["architecture"]["arch_kwargs"]["features_per_stage"] = [self.width] * 3
        return plans


def test_added_argument_reaches_plans_and_checkpoint_arguments(dataset: Path) -> None:
    trainer = make_trainer(WidthTrainer, width=6)
    assert trainer.my_init_kwargs["width"] == 6
    assert trainer.configuration_manager.network_arch_init_kwargs["features_per_stage"] == [6, 6, 6]
    again = WidthTrainer(**trainer.my_init_kwargs)
    assert again.my_init_kwargs == trainer.my_init_kwargs


def test_initialize_twice_is_a_mistake(dataset: Path) -> None:
    trainer = make_trainer(nnUNetTrainer)
    trainer.initialize()
    with pytest.raises(RuntimeError, match="second time"):
        trainer.initialize()


def test_optimiser_is_upstreams(dataset: Path) -> None:
    trainer = make_trainer(nnUNetTrainer)
    trainer.initialize()
    (group,) = trainer.optimizer.param_groups
    assert {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")} == {
        "lr": 0.01,
        "momentum": 0.99,
        "nesterov": True,
        "weight_decay": 3e-5,
    }
    assert len(group["params"]) == len(list(trainer.network.parameters()))


@pytest.mark.parametrize(
    ("trainer_class", "axes"),
    [
        (nnUNetTrainer, (0, 1)),
        (nnUNetTrainerNoMirroring, None),
        (nnUNetTrainer_onlyMirror01, (0,)),
        (nnUNetTrainerNoDA, None),
    ],
)
def test_mirror_axes_of_training_are_those_of_prediction(
    dataset: Path, trainer_class: type[nnUNetTrainer], axes: tuple[int, ...] | None
) -> None:
    trainer = make_trainer(trainer_class)
    settings = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert settings[3] == trainer.inference_allowed_mirroring_axes == axes
    assert tuple(settings[2]) == ((32, 32) if trainer_class is nnUNetTrainerNoDA else (37, 37))


def test_without_deep_supervision_there_is_one_output_and_one_target(dataset: Path) -> None:
    trainer = make_trainer(nnUNetTrainerNoDeepSupervision)
    trainer.initialize()
    trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    trainer.on_train_epoch_start()
    batch = next(trainer.dataloader_train)
    assert batch["target"].shape == (2, 1, 32, 32)
    assert trainer.network(batch["data"]).shape == (2, 3, 32, 32)
    assert trainer.train_step(batch)["loss"].shape == ()
    outputs = trainer.validation_step(next(trainer.dataloader_val))
    assert outputs["tp_hard"].shape == (2,)


class SteppingTrainer(nnUNetTrainer):
    scheduler_step_per_iteration = True
    num_iterations_per_epoch = 4

    def configure_optimizers(self) -> tuple[Any, Any]:
        optimizer = torch.optim.SGD(self.parameter_groups(), self.initial_lr)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=8)


def test_scheduler_can_step_per_iteration_and_its_state_is_restored(dataset: Path) -> None:
    trainer = make_trainer(SteppingTrainer)
    trainer.initialize()
    trainer.dataloader_train, _ = trainer.get_dataloaders()
    rates = []
    for _ in range(3):
        trainer.train_step(next(trainer.dataloader_train))
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert len(set(rates)) == 3

    path = Path(trainer.output_folder) / "checkpoint_latest.pth"
    path.parent.mkdir(parents=True)
    trainer.save_checkpoint(str(path))
    resumed = make_trainer(SteppingTrainer)
    resumed.load_checkpoint(str(path))
    resumed.lr_scheduler.step()
    trainer.lr_scheduler.step()
    assert resumed.optimizer.param_groups[0]["lr"] == trainer.optimizer.param_groups[0]["lr"]
