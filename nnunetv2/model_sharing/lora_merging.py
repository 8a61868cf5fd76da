"""Merge the LoRA adapters of a model into the weights of its backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from dinov3.layers.lora import merge_lora
from nnunetv2.inference.model_loading import build_network_for_inference, load_weights
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

MERGED_TUNING = "full"  # merged weights differ from the pretrained ones, so all of them belong to the model
_OVERRIDES = "overrides"


def has_adapters(plans: Mapping[str, Any], configuration: str) -> bool:
    """Whether the planned network has LoRA adapters."""
    return (_architecture(plans, configuration)["arch_kwargs"] or {}).get("tuning") == "lora"


def merged_plans(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Copy of the plans in which one configuration describes the network without adapters."""
    changed = copy.deepcopy(dict(plans))
    architecture = copy.deepcopy(_architecture(changed, configuration))
    architecture["arch_kwargs"].pop("lora", None)
    architecture["arch_kwargs"]["tuning"] = MERGED_TUNING
    changed["configurations"][configuration]["architecture"] = architecture
    return changed


def _architecture(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    return PlansManager(dict(plans)).get_configuration(configuration).configuration["architecture"]


def merged_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of a trainer's settings that describes the network without adapters."""
    changed = copy.deepcopy(dict(settings))
    changed["model"]["tuning"] = MERGED_TUNING
    changed["lora"]["enabled"] = False
    return changed


def merge_checkpoint(
    content: Mapping[str, Any], plans: Mapping[str, Any], dataset_json: dict, source: str
) -> dict[str, Any]:
    """Copy of a checkpoint with merged adapters and a matching description of the network.

    The optimizer state still belongs to the adapters; the caller has to remove it.

    Args:
        plans: those of the model folder.
        source: path of the checkpoint, for messages.

    Raises:
        DataError: the weights do not match the planned network, or the merged weights the changed plans.
    """
    arguments, trainer = dict(content["init_args"]), content["trainer_name"]
    configuration = arguments["configuration"]
    network = _network(trainer, plans, configuration, dataset_json)
    load_weights(network, content["network_weights"], source)
    weights = merge_lora(network).state_dict()
    plain = _network(trainer, merged_plans(plans, configuration), configuration, dataset_json)
    load_weights(plain, weights, f"{source}, with merged adapters,")
    if "plans" in arguments:
        arguments["plans"] = merged_plans(arguments["plans"], configuration)
    for name in arguments:
        if name.endswith(_OVERRIDES):  # a trainer created from these arguments must build the merged network
            arguments[name] = [*arguments[name], f"model.tuning={MERGED_TUNING}"]
    merged = {**content, "network_weights": weights, "init_args": arguments}
    if "trainer_config" in content:
        merged["trainer_config"] = merged_settings(content["trainer_config"])
    return merged


def _network(trainer: str, plans: Mapping[str, Any], configuration: str, dataset_json: dict) -> nn.Module:
    manager = PlansManager(dict(plans))
    return build_network_for_inference(trainer, manager, manager.get_configuration(configuration), dataset_json)
