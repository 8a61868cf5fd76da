"""The network of a trainer that is one of several processes."""

from __future__ import annotations

from typing import Any

from torch import nn

from dinov3.layers.synced_batch_norm import synchronise_batch_norm
from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.process_group import distribute_network
from nnunetv2.model.chosen_blocks import four_blocks


def distribute(trainer: Any) -> nn.Module:
    """Wraps the network of a trainer so that all processes have the same weights, gradients and batch statistics."""
    network = synchronise_batch_norm(trainer.network, trainer.device)
    idle = has_idle_parameters(trainer.network, trainer.enable_deep_supervision, trainer.trainer_config)
    return distribute_network(network, trainer.device, find_unused_parameters=idle)


def has_idle_parameters(network: nn.Module, deep_supervision: bool, settings: dict[str, Any] | None) -> bool:
    """Whether a step may leave trained parameters without a gradient, which distributed training has to know.

    Convolutional networks keep the heads of their lower resolutions when these are not supervised. A whole backbone has
    parameters for its own pre-training, and its last blocks may lie behind those that are read.

    Args:
        settings: of a trainer that has them, with the section `model`.
    """
    backbone = getattr(unwrap(network), "backbone", None)
    if backbone is None:
        return not deep_supervision
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        return False
    model = (settings or {}).get("model", {})
    if model.get("tuning") != "lora":
        return True
    num_blocks = backbone.num_blocks
    return max(four_blocks(num_blocks, model.get("backbone_out_layers", "FOUR_LAST"))) < num_blocks - 1
