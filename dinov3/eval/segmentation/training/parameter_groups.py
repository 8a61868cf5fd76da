"""Groups of parameters for an optimiser: rates for head, LoRA and backbone, and no weight decay where it would harm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

# Like the weights of `nn.Embedding`, these are looked up or added, not multiplied with, and have no weight decay.
_EMBEDDINGS = ("level_embed", "level_encoding", "cls_token", "reg_token", "storage_tokens", "mask_token", "pos_embed")
_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_IN_FRONT_OF_BLOCKS = re.compile(r"(?:^|\.)(?:patch_embed|pos_embed|cls_token|reg_token|storage_tokens|mask_token)\b")


class _Part(NamedTuple):
    """What one learning rate is for; parts are listed in this order."""

    order: int
    name: str
    rate: float


def parameter_groups(
    network: nn.Module,
    backbone: nn.Module,
    *,
    lr: float,
    backbone_lr: float,
    weight_decay: float,
    lora_lr: float | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups for head, LoRA's adapters and backbone, each with and without weight decay.

    Args:
        network: the whole network; parameters that need no gradient are left out.
        backbone: the part of it that has its own learning rate.
        lr: learning rate of all other parts.
        backbone_lr: learning rate of the backbone.
        weight_decay: of weight matrices and kernels; norms, biases, scales and embeddings have none.
        lora_lr: learning rate of the adapters in the backbone; None: they belong to the backbone.
        layer_decay: in (0, 1]; block i of n learns at backbone_lr * layer_decay ** (n - i), what lies in front of the
            blocks at layer_decay ** (n + 1), and the norm behind them as the last one. 1: the backbone is one part.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`; the head's come first.

    Source: Bao et al. 2022, "BEiT", arXiv:2106.08254, for the decay by layers; its scales are those of timm's
    `param_groups_layer_decay` for a model with a classifier, except that registers count among the embeddings.
    """
    of_backbone = dict(_backbone_parts(backbone, backbone_lr, lora_lr, layer_decay))
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    groups: dict[tuple[_Part, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            part = of_backbone.get(id(parameter), _Part(0, "head", lr))
            is_embedding = id(parameter) in embeddings or any(known in name for known in _EMBEDDINGS)
            groups.setdefault((part, parameter.ndim <= 1 or is_embedding), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": part.rate,
            "weight_decay": 0.0 if undecayed else weight_decay,
            "name": f"{part.name}{', no decay' if undecayed else ''}",
        }
        for (part, undecayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def group_report(group: dict[str, Any]) -> str:
    """One line for the log about a group of an optimiser; of a rate that a schedule changes, the highest."""
    size = sum(parameter.numel() for parameter in group["params"])
    peak = group.get("initial_lr", group["lr"])  # a schedule keeps it there
    return f"{group['name']}: {size} parameters, learning rate {peak:.3g}, decay {group['weight_decay']:g}"


def _backbone_parts(
    backbone: nn.Module, backbone_lr: float, lora_lr: float | None, layer_decay: float
) -> Iterator[tuple[int, _Part]]:
    names = [name for name, _ in backbone.named_parameters()]
    num_blocks = max((int(found[1]) + 1 for found in map(_BLOCK.search, names) if found), default=0)
    for name, parameter in backbone.named_parameters():
        if lora_lr is not None and ".lora_" in name:
            yield id(parameter), _Part(1, "lora", lora_lr)
        elif layer_decay == 1:
            yield id(parameter), _Part(2, "backbone", backbone_lr)
        else:
            layer, layer_name = _layer_of(name, num_blocks)
            rate = backbone_lr * layer_decay ** (num_blocks + 1 - layer)
            yield id(parameter), _Part(2 + layer, f"backbone, {layer_name}", rate)


def _layer_of(name: str, num_blocks: int) -> tuple[int, str]:
    """0 for what lies in front of the blocks, then one more for each; the norm behind them is with the last."""
    if found := _BLOCK.search(name):
        return int(found[1]) + 1, f"block {found[1]}"
    if _IN_FRONT_OF_BLOCKS.search(name):
        return 0, "embeddings"
    return num_blocks, f"block {num_blocks - 1}"
