"""Load a trained model from its folder: plans, dataset, and the weights of one or several folds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dinov3.utils.network_wrappers import unwrap
from nnunetv2.errors import DataError
from nnunetv2.inference.model_files import checkpoints_of_folds
from nnunetv2.model.network_hook import call_network_hook
from nnunetv2.utilities import torch_compile
from nnunetv2.utilities.checkpoint_content import check_checkpoint
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True)
class TrainedModel:
    """Parts of a model folder that prediction needs."""

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict
    trainer_name: str
    network: nn.Module
    """initialised with the weights of the first fold"""
    parameters: list[dict[str, torch.Tensor]]
    """weights of each fold"""
    mirroring_axes: tuple[int, ...] | None
    """spatial axes mirrored in training"""


def load_trained_model(
    folder: str | os.PathLike, folds: Sequence[int | str] | int | str | None, checkpoint_name: str
) -> TrainedModel:
    """Load a model; the trainer named in the checkpoint builds the network described by the folder's plans.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`.
        folds: numbers, or "all" for the fold of that name; None uses every numbered fold that has the checkpoint.

    Raises:
        UsageError: the folder, a fold, the checkpoint or the trainer does not exist.
        DataError: a file of the model is damaged, or weights do not match the network.
    """
    folder = Path(folder)
    paths = checkpoints_of_folds(folder, folds, checkpoint_name)
    plans_manager = PlansManager(folder / "plans.json")
    dataset_json = read_dataset_json(folder / "dataset.json", trained=True)
    parameters = []
    for path in reversed(paths):  # ends with the first fold, whose checkpoint defines trainer and configuration below
        checkpoint = _read_checkpoint(path)
        parameters.insert(0, checkpoint["network_weights"])
    configuration_manager = plans_manager.get_configuration(checkpoint["init_args"]["configuration"])
    network = build_network_for_inference(
        checkpoint["trainer_name"], plans_manager, configuration_manager, dataset_json
    )
    # Checks the weights of every fold up front; the first fold is loaded last and stays.
    for weights, path in reversed(list(zip(parameters, paths, strict=True))):
        load_weights(network, weights, str(path))
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    return TrainedModel(
        plans_manager=plans_manager,
        configuration_manager=configuration_manager,
        dataset_json=dataset_json,
        trainer_name=checkpoint["trainer_name"],
        network=network,
        parameters=parameters,
        mirroring_axes=None if axes is None else tuple(axes),
    )


def build_network_for_inference(
    trainer_name: str,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    dataset_json: dict,
) -> nn.Module:
    """Build the network of a trainer class with arbitrary weights and without deep supervision."""
    trainer_class = recursive_find_trainer_class_by_name(trainer_name)
    return call_network_hook(
        trainer_class.build_network_architecture,
        plans_manager,
        configuration_manager,
        determine_num_input_channels(plans_manager, configuration_manager, dataset_json),
        plans_manager.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=False,
    )


def load_weights(network: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Load weights into a network, compiled or not.

    Raises:
        DataError: names or shapes differ; the message mentions `source`.
    """
    try:
        unwrap(network).load_state_dict(weights)
    except RuntimeError as err:
        reasons = " ".join(str(err).split())
        shown = reasons if len(reasons) <= 600 else f"{reasons[:600]} ..."
        raise DataError(
            f"{source} does not fit the network that the model folder's plans.json describes: {shown}"
        ) from err


def compile_if_wanted(network: nn.Module) -> nn.Module:
    """Compile the network if `nnUNet_compile` is set explicitly; compilation pays off only for many images."""
    if not torch_compile.is_wanted() or unwrap(network) is not network:
        return network
    return torch_compile.compiled(network)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(path)
    check_checkpoint(checkpoint, str(path))
    return checkpoint
