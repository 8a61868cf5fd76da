"""Groups of parameters for an optimiser: a slower backbone, and no weight decay where it would harm."""

from __future__ import annotations

from typing import Any

from torch import nn

# Queries, level codes and tokens are looked up, not multiplied with; like norms and biases they have no weight decay.
_EMBEDDINGS = ("query_feat", "query_embed", "level_embed", "level_encoding", "cls_token", "reg_token", "pos_embed")


def parameter_groups(
    network: nn.Module, backbone: nn.Module, *, lr: float, backbone_lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Up to four groups: head and backbone, each with and without weight decay.

    Args:
        network: the whole network; parameters that need no gradient are left out.
        backbone: the part of it that has its own learning rate.
        lr: learning rate of all other parts.
        backbone_lr: learning rate of the backbone.
        weight_decay: of weight matrices and kernels; norms, biases, scales and embeddings have none.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`; the head's come first.
    """
    in_backbone = {id(parameter) for parameter in backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not any(part in name for part in _EMBEDDINGS)
            groups.setdefault((id(parameter) in in_backbone, not decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": backbone_lr if of_backbone else lr,
            "weight_decay": 0.0 if undecayed else weight_decay,
            "name": f"{'backbone' if of_backbone else 'head'}{', no decay' if undecayed else ''}",
        }
        for (of_backbone, undecayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
