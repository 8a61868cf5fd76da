"""Computes the costs of the models that a call of `nnUNetv2_model_info` requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nnunetv2.errors import UsageError
from nnunetv2.model.cost.model_cost import ModelCost
from nnunetv2.run.model_info_request import InfoRequest
from nnunetv2.run.trainer_setup import make_trainer
from nnunetv2.run.training_run import DEFAULT_TRAINER
from nnunetv2.training.cost.trainer_cost import trainer_cost, trainer_of_model_folder
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.presets import settings_file
from nnunetv2.utilities.training_commands import settings_arguments, settings_prefix

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ModelInfo:
    """A model and its cost."""

    name: str
    """name of its trainer, or folder of a trained model, with as many parent folders as tell several apart"""
    configuration: str
    num_outputs: int
    cost: ModelCost


def models_of_dataset(request: InfoRequest) -> list[ModelInfo]:
    """Describes the models that trainers would train on a preprocessed dataset.

    Raises:
        UsageError: dataset, plans, configuration, trainer or setting are unknown, or the trainers accept no settings.
    """
    classes = [find_by_name("trainer", name) for name in request.trainers or (DEFAULT_TRAINER,)]
    has_settings = request.config_path is not None or bool(request.overrides)
    if has_settings and all(settings_prefix(kind) is None for kind in classes):
        names = ", ".join(trainer.__name__ for trainer in classes)
        raise UsageError(f"{names} takes no settings; leave out --config and key=value, or choose another -tr")
    models = []
    for trainer_class in classes:
        path = request.config_path
        if path is not None:
            path = settings_file(path, settings_prefix(trainer_class) or "")
        settings = settings_arguments(trainer_class, path, request.overrides)
        arguments = (request.dataset, request.configuration, 0, request.plans_identifier)
        trainer = make_trainer(trainer_class, *arguments, device=_CPU, trainer_kwargs=settings)
        models.append(_describe(trainer_class.__name__, trainer, trainer.plans_manager, request))
    return models


def trained_models(request: InfoRequest) -> list[ModelInfo]:
    """Describes the models in model folders, with the networks of the folders' plans.

    Raises:
        UsageError: a folder does not exist or is not named like a model folder, or its trainer is unknown.
        DataError: a file in a folder is damaged, or the file of a model's head is not installed.
    """
    models = []
    for folder, name in zip(request.model_folders, _distinct_names(request.model_folders), strict=True):
        trainer = trainer_of_model_folder(folder)
        plans = PlansManager(folder / "plans.json")
        models.append(_describe(name, trainer, plans, request))
    return models


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """Returns the ends of the paths, as short as tells the folders apart."""
    parts = [folder.resolve().parts for folder in folders]
    lengths = range(1, max(map(len, parts)) + 1)
    length = next(length for length in lengths if len({path[-length:] for path in parts}) == len(set(parts)))
    return ["/".join(path[-length:]) for path in parts]


def _describe(name: str, trainer: nnUNetTrainer, plans: PlansManager, request: InfoRequest) -> ModelInfo:
    configuration = plans.get_configuration(trainer.configuration_name)
    patch_size = tuple(request.patch_size or configuration.patch_size)
    if len(patch_size) != len(configuration.patch_size):
        raise UsageError(
            f"--patch_size has {len(patch_size)} numbers; configuration {trainer.configuration_name} needs "
            f"{len(configuration.patch_size)}"
        )
    cost = trainer_cost(
        trainer,
        plans,
        patch_size=patch_size,
        batch_size=request.batch_size,
        precision=None if request.precision == "auto" else request.precision,
    )
    num_outputs = plans.get_label_manager(trainer.dataset_json).num_segmentation_heads
    return ModelInfo(name, trainer.configuration_name, num_outputs, cost)
