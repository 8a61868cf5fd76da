"""Converts tensor names of vision transformers with learned positions (DINOv2, MAE, iBOT) to timm's.

Unknown names are kept, so that the caller can report them.
Source: state dicts of `facebookresearch/dinov2`, of `Dinov2Model`, `Dinov2WithRegistersModel`, `ViTModel` and
`ViTMAEModel` of transformers 4 and 5, and of `timm.models.vision_transformer.VisionTransformer`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_BLOCK = re.compile(r"(blocks(?:\.\d+)?|(?:encoder\.layer|layers))\.(\d+)\.(.+)")
# Each name is a tensor or a module with all its tensors; other library -> timm.
_OUTSIDE_BLOCKS = {
    "register_tokens": "reg_token",  # Meta's
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_META_BLOCK = {"mlp.w12": "mlp.fc1", "mlp.w3": "mlp.fc2", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
_HF_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "mlp.down_proj": "mlp.fc2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
# Parts that timm concatenates to one tensor, in order.
_JOINED = {
    "attn.qkv": (
        ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
        ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    ),
    "mlp.fc1": (("mlp.gate_proj", "mlp.up_proj"),),
}
_PART_OF = {
    part: (whole, place) for whole, sets in _JOINED.items() for parts in sets for place, part in enumerate(parts)
}


def to_timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames tensors to timm's names; concatenates queries, keys and values, and gate and value.

    Chunked block names of DINOv2's training code (`blocks.2.17.`) are flattened (`blocks.17.`).
    """
    result: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in weights.items():
        match = _BLOCK.fullmatch(name)
        if match is None:
            result[_renamed(name, _OUTSIDE_BLOCKS)] = tensor
            continue
        path, number, inner = match.groups()
        module, _, kind = inner.rpartition(".")
        if module in _PART_OF:
            whole, place = _PART_OF[module]
            parts.setdefault(f"blocks.{number}.{whole}.{kind}", {})[place] = tensor
        else:
            table = _META_BLOCK if path.startswith("blocks") else _HF_BLOCK
            result[f"blocks.{number}.{_renamed(inner, table)}"] = tensor
    return result | {name: torch.cat([pieces[place] for place in sorted(pieces)]) for name, pieces in parts.items()}


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for theirs, timms in table.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return timms + name[len(theirs) :]
    return name
