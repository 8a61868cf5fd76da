"""Parameter groups for an optimiser: learning rates of head, LoRA and backbone, and exemptions from weight decay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

# Like the weights of `nn.Embedding`, these are looked up or added, not multiplied, and have no weight decay.
_EMBEDDINGS = ("level_embed", "level_encoding", "cls_token", "reg_token", "storage_tokens", "mask_token", "pos_embed")
_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_IN_FRONT_OF_BLOCKS = re.compile(r"(?:^|\.)(?:patch_embed|pos_embed|cls_token|reg_token|storage_tokens|mask_token)\b")


class _Part(NamedTuple):
    """A part of the network with its own learning rate; parts are sorted by `order`."""

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
    """Builds groups for head, LoRA adapters and backbone, each with and without weight decay.

    Args:
        network: the whole network; frozen parameters are skipped.
        backbone: the part with its own learning rate.
        lr: learning rate of all other parts.
        backbone_lr: learning rate of the backbone.
        weight_decay: weight decay of weight matrices and kernels; norms, biases, scales and embeddings have none.
        lora_lr: learning rate of the adapters in the backbone; None: that of the backbone.
        layer_decay: in (0, 1]; block i of n uses backbone_lr * layer_decay ** (n - i), the embeddings before the blocks
            layer_decay ** (n + 1), and the final norm the same as the last block. 1: the backbone is one part.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`; the head's come first.

    Source: Bao et al. 2022, "BEiT", arXiv:2106.08254, for layer-wise decay; the scales are those of timm's
    `param_groups_layer_decay` for a model with a classifier, except that registers are treated as embeddings.
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
    """Formats one log line about a parameter group; shows the peak of a scheduled rate."""
    size = sum(parameter.numel() for parameter in group["params"])
    peak = group.get("initial_lr", group["lr"])  # schedules store the peak there
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
    """Layer number for the decay: 0 before the blocks, then 1 to n; the final norm belongs to the last block."""
    if found := _BLOCK.search(name):
        return int(found[1]) + 1, f"block {found[1]}"
    if _IN_FRONT_OF_BLOCKS.search(name):
        return 0, "embeddings"
    return num_blocks, f"block {num_blocks - 1}"
