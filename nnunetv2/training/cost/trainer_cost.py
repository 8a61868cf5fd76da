"""Cost of a trainer's network, for trainers rebuilt from model folders; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from dinov3.utils.precision import resolve_precision
from nnunetv2.errors import UsageError
from nnunetv2.model.cost.model_cost import ModelCost, model_cost
from nnunetv2.model.head_config import find_head
from nnunetv2.model.network_hook import call_network_hook
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.file_path_utilities import convert_identifier_to_trainer_plans_config
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.plans_handling.plans_schema import read_plans
from nnunetv2.utilities.training_commands import settings_arguments

_CPU = torch.device("cpu")
_CUDA = torch.device("cuda")


def trainer_of_model_folder(folder: Path, trainer_name: str | None = None) -> nnUNetTrainer:
    """Rebuilds the trainer of a model folder, on the CPU and not initialised.

    Args:
        trainer_name: None: taken from the folder's name.

    Raises:
        UsageError: the folder is not named like a model folder, lacks a file, or its trainer is unknown.
        DataError: a file in the folder is damaged, or the file of the model's head is not installed.
    """
    own_name, _, configuration = convert_identifier_to_trainer_plans_config(folder.resolve())
    missing = [name for name in ("plans.json", "dataset.json") if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"{folder} has no {' and no '.join(missing)}; give the folder of a trained model")
    plans, dataset_json = read_plans(folder / "plans.json"), read_dataset_json(folder / "dataset.json", trained=True)
    _require_head(PlansManager(plans).get_configuration(configuration))
    trainer_class = find_by_name("trainer", trainer_name or own_name)
    settings = settings_arguments(trainer_class, _stored_settings(folder, trainer_class))
    return trainer_class(plans, configuration, 0, dataset_json, _CPU, **settings)


def precision_on_gpu(trainer: nnUNetTrainer) -> str:
    """Returns the precision that the trainer would use on a GPU."""
    is_from_settings = hasattr(type(trainer), "config_class") and "precision" in vars(trainer)
    precision = trainer.config.training.precision_on("cuda") if is_from_settings else trainer.precision
    return resolve_precision(precision, _CUDA)


def trainer_cost(
    trainer: nnUNetTrainer,
    plans: PlansManager,
    *,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
) -> ModelCost:
    """Counts the cost of a trainer's network, built and optimised by the trainer's hooks.

    Args:
        plans: plans that define the architecture.
        patch_size: None: as planned; the same for the batch size.
        precision: None: the trainer's precision on a GPU.

    Raises:
        UsageError: the network cannot process this patch size.
    """
    configuration = plans.get_configuration(trainer.configuration_name)
    channels = determine_num_input_channels(plans, configuration, trainer.dataset_json)
    num_outputs = plans.get_label_manager(trainer.dataset_json).num_segmentation_heads

    def build() -> nn.Module:
        hook, supervised = trainer.build_network_architecture, trainer.enable_deep_supervision
        return call_network_hook(hook, plans, configuration, channels, num_outputs, supervised)

    def make_optimizer(network: nn.Module) -> torch.optim.Optimizer:
        trainer.network = network
        return trainer.configure_optimizers()[0]

    return model_cost(
        build,
        channels * trainer.context_slices,
        tuple(patch_size or configuration.patch_size),
        batch_size=batch_size or configuration.batch_size,
        precision=precision or precision_on_gpu(trainer),
        make_optimizer=make_optimizer,
        deep_supervision=trainer.enable_deep_supervision,
    )


def _require_head(configuration: ConfigurationManager) -> None:
    """Raises `DataError` if the head in the plans is not installed; the trainer's settings would only say its name."""
    head = (configuration.configuration.get("architecture", {}).get("arch_kwargs") or {}).get("head")
    if isinstance(head, dict):
        find_head(head)


def _stored_settings(folder: Path, trainer_class: type) -> str | None:
    if not hasattr(trainer_class, "config_class"):
        return None
    return next(map(str, sorted(folder.glob(f"fold_*/{trainer_class.config_class.file_name}"))), None)
