"""From what `nnUNetv2_model_info` was asked to the costs of models."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dinov3.utils.atomic_files import read_json
from dinov3.utils.precision import resolve_precision
from nnunetv2.errors import UsageError
from nnunetv2.model.model_cost import ModelCost, model_cost
from nnunetv2.model.network_hook import call_network_hook
from nnunetv2.run.trainer_setup import make_trainer
from nnunetv2.run.training_run import DEFAULT_TRAINER
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.file_path_utilities import convert_identifier_to_trainer_plans_config
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

if TYPE_CHECKING:
    from nnunetv2.run.model_info import InfoRequest

_CPU = torch.device("cpu")
_CUDA = torch.device("cuda")


@dataclass(frozen=True)
class ModelInfo:
    """A model and what it costs."""

    name: str
    """of its trainer, or the folder of a trained model"""
    configuration: str
    num_outputs: int
    cost: ModelCost


def models_of_dataset(request: InfoRequest) -> list[ModelInfo]:
    """The models that trainers would train on a preprocessed dataset.

    Raises:
        UsageError: no such dataset, plans, configuration, trainer or setting; or settings for trainers without any.
    """
    classes = [find_by_name("trainer", name) for name in request.trainers or (DEFAULT_TRAINER,)]
    has_settings = request.config_path is not None or bool(request.overrides)
    if has_settings and not any(map(settings_name, classes)):
        names = ", ".join(trainer.__name__ for trainer in classes)
        raise UsageError(f"{names} takes no settings; leave out --config and key=value, or choose another -tr")
    models = []
    for trainer_class in classes:
        settings = settings_arguments(trainer_class, request.config_path, request.overrides)
        arguments = (request.dataset, request.configuration, 0, request.plans_identifier)
        trainer = make_trainer(trainer_class, *arguments, device=_CPU, trainer_kwargs=settings)
        models.append(_describe(trainer_class.__name__, trainer, trainer.plans_manager, request))
    return models


def trained_models(request: InfoRequest) -> list[ModelInfo]:
    """The models in model folders; their networks are what the folders' plans describe.

    Raises:
        UsageError: a folder that does not exist or has no model folder's name, or an unknown trainer.
        DataError: a file in it that is damaged.
    """
    models = []
    for folder in request.model_folders:
        trainer_name, _, configuration = convert_identifier_to_trainer_plans_config(folder.resolve())
        missing = [name for name in ("plans.json", "dataset.json") if not (folder / name).is_file()]
        if missing:
            raise UsageError(f"{folder} has no {' and no '.join(missing)}; give the folder of a trained model")
        trainer_class = find_by_name("trainer", trainer_name)
        plans = read_json(folder / "plans.json")
        settings = settings_arguments(trainer_class, _stored_settings(folder, trainer_class))
        trainer = trainer_class(plans, configuration, 0, read_json(folder / "dataset.json"), _CPU, **settings)
        models.append(_describe(folder.resolve().name, trainer, PlansManager(plans), request))
    return models


def settings_name(trainer_class: type[nnUNetTrainer]) -> str | None:
    """`m2f` for a trainer with the arguments `m2f_config_path` and `m2f_overrides`; None for one without settings."""
    suffix = "_config_path"
    parameters = inspect.signature(trainer_class.__init__).parameters
    names = [name.removesuffix(suffix) for name in parameters if name.endswith(suffix)]
    return next((name for name in names if f"{name}_overrides" in parameters), None)


def settings_arguments(
    trainer_class: type[nnUNetTrainer], config_path: str | None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Arguments that give a trainer its settings; none if it takes none."""
    name = settings_name(trainer_class)
    return {} if name is None else {f"{name}_config_path": config_path, f"{name}_overrides": list(overrides)}


def precision_on_gpu(trainer: nnUNetTrainer) -> str:
    """The number format that a trainer on the CPU would use on a GPU."""
    is_from_settings = isinstance(trainer, nnUNetTrainer_vit) and "precision" in vars(trainer)
    precision = trainer.config.training.precision_on("cuda") if is_from_settings else trainer.precision
    return resolve_precision(precision, _CUDA)


def _stored_settings(folder: Path, trainer_class: type[nnUNetTrainer]) -> str | None:
    if not issubclass(trainer_class, nnUNetTrainer_vit):
        return None
    return next(map(str, sorted(folder.glob(f"fold_*/{trainer_class.config_class.file_name}"))), None)


def _describe(name: str, trainer: nnUNetTrainer, plans: PlansManager, request: InfoRequest) -> ModelInfo:
    configuration = plans.get_configuration(trainer.configuration_name)
    patch_size = tuple(request.patch_size or configuration.patch_size)
    if len(patch_size) != len(configuration.patch_size):
        raise UsageError(
            f"--patch_size has {len(patch_size)} numbers; configuration {trainer.configuration_name} needs "
            f"{len(configuration.patch_size)}"
        )
    channels = determine_num_input_channels(plans, configuration, trainer.dataset_json)
    num_outputs = plans.get_label_manager(trainer.dataset_json).num_segmentation_heads

    def build() -> nn.Module:
        hook, supervised = trainer.build_network_architecture, trainer.enable_deep_supervision
        return call_network_hook(hook, plans, configuration, channels, num_outputs, supervised)

    def make_optimizer(network: nn.Module) -> torch.optim.Optimizer:
        trainer.network = network
        return trainer.configure_optimizers()[0]

    cost = model_cost(
        build,
        channels,
        patch_size,
        batch_size=request.batch_size or configuration.batch_size,
        precision=precision_on_gpu(trainer) if request.precision == "auto" else request.precision,
        make_optimizer=make_optimizer,
        deep_supervision=trainer.enable_deep_supervision,
    )
    return ModelInfo(name, trainer.configuration_name, num_outputs, cost)
