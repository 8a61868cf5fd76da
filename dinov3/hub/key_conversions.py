"""Converts the tensor names of DINOv3 vision transformers between Meta, timm and Hugging Face.

The conversions map a state dict to a new one. They rename, split and concatenate tensors but create none: what a format
lacks (timm: the mask token; timm and Hugging Face: the periods of the rotary embedding and the bias mask) is absent
from the result, and `load_weights` fills it. Unknown names are kept, so that the caller can report them.

Source: state dicts of `facebookresearch/dinov3`, `timm.models.eva.Eva` and `transformers.DINOv3ViTModel`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from dinov3.utils.errors import DataError

Format = Literal["meta", "timm", "huggingface"]
StateDict = Mapping[str, Tensor]

# (Meta, timm, Hugging Face); each name is a tensor or a module with all its tensors.
_OUTSIDE_BLOCKS = (
    ("cls_token", "cls_token", "embeddings.cls_token"),
    ("storage_tokens", "reg_token", "embeddings.register_tokens"),
    ("mask_token", "mask_token", "embeddings.mask_token"),
    ("patch_embed.proj", "patch_embed.proj", "embeddings.patch_embeddings"),
    ("norm", "norm", "norm"),
)
_IN_A_BLOCK = (
    ("norm1", "norm1", "norm1"),
    ("attn.qkv", "attn.qkv", "attention.qkv"),  # split in three in Hugging Face
    ("attn.proj", "attn.proj", "attention.o_proj"),
    ("ls1.gamma", "gamma_1", "layer_scale1.lambda1"),
    ("norm2", "norm2", "norm2"),
    ("ls2.gamma", "gamma_2", "layer_scale2.lambda1"),
)
_PLAIN_MLP = (
    ("mlp.fc1", "mlp.fc1", "mlp.up_proj"),
    ("mlp.fc2", "mlp.fc2", "mlp.down_proj"),
)
_GATED_MLP = (
    ("mlp.w1", "mlp.fc1_g", "mlp.gate_proj"),
    ("mlp.w2", "mlp.fc1_x", "mlp.up_proj"),
    ("mlp.w3", "mlp.fc2", "mlp.down_proj"),
)
_COLUMN: dict[Format, int] = {"meta": 0, "timm": 1, "huggingface": 2}
_BLOCK = re.compile(r"(?:blocks|(?:model\.)?layer)\.(\d+)\.(.+)")
_META_CONSTANTS = ("rope_embed.periods", "local_cls_norm.weight", "local_cls_norm.bias")
_SHOWN_NAMES = 3


def detect_format(state_dict: StateDict) -> Format:
    """Detects the naming format of a DINOv3 vision transformer.

    Raises:
        DataError: the names belong to another or an unknown model.
    """
    found = find_format(state_dict)
    if found is None:
        raise DataError(
            f"The weights are not those of a DINOv3 vision transformer with the names of Meta, timm or Hugging Face: "
            f"{_describe(state_dict)}"
        )
    return found


def find_format(state_dict: Iterable[str]) -> Format | None:
    """Like `detect_format`, but returns None if the tensors are not a DINOv3 vision transformer."""
    names = set(state_dict)
    inner = {match[2] for match in map(_BLOCK.fullmatch, names) if match}
    if not inner or "pos_embed" in names:
        return None
    if "embeddings.patch_embeddings.weight" in names and "attention.q_proj.weight" in inner:
        return "huggingface"
    if "patch_embed.proj.weight" not in names or "attn.qkv.weight" not in inner:
        return None
    if names & {"storage_tokens", "rope_embed.periods"} or inner & {"ls1.gamma", "mlp.w1.weight"}:
        return "meta"
    if "reg_token" in names or inner & {"gamma_1", "mlp.fc1_g.weight"}:
        return "timm"
    return None


def to_meta(state_dict: StateDict) -> dict[str, Tensor]:
    """Converts tensors in any of the three formats to Meta's names.

    Raises:
        DataError: see `detect_format`.
    """
    found = detect_format(state_dict)
    if found == "timm":
        return timm_to_meta(state_dict)
    return hf_to_meta(state_dict) if found == "huggingface" else dict(state_dict)


def meta_to_timm(state_dict: StateDict, *, qkv_bias: bool = False) -> dict[str, Tensor]:
    """Converts to the names of timm's `vit_*_patch16_dinov3`.

    Args:
        state_dict: tensors with Meta's names.
        qkv_bias: create the tensors of the `*_qkvb` models, which have biases on queries and values. The released
            weights do not need it: their biases are masked to zero.

    Raises:
        DataError: a non-zero bias would be lost: on keys, which timm does not support, or on queries and values with
            `qkv_bias=False`.
    """
    gated = _gated_blocks(state_dict)
    result = {}
    for name, tensor in state_dict.items():
        if name != "mask_token" and name not in _META_CONSTANTS and not _is_qkv_bias(name):
            result[_renamed(name, "meta", "timm", "blocks.{}", gated)] = tensor
    for block in _blocks(state_dict):
        query, key, value = _effective_biases(state_dict, block)
        if key.any():
            raise DataError(f"Block {block} has a bias on its keys, which timm's models cannot hold")
        if qkv_bias:
            result[f"blocks.{block}.attn.q_bias"] = query
            result[f"blocks.{block}.attn.v_bias"] = value
        elif query.any() or value.any():
            raise DataError(
                f"Block {block} has a bias on its queries or values, which timm's plain models cannot hold; its *_qkvb "
                f"models can (convert with qkv_bias=True)"
            )
    return result


def timm_to_meta(state_dict: StateDict) -> dict[str, Tensor]:
    """Converts from the names of timm's `vit_*_patch16_dinov3` and `*_qkvb` models.

    The biases of the latter become `qkv.bias`, with zeros for the keys.
    """
    gated = _gated_blocks(state_dict)
    result = {}
    for name, tensor in state_dict.items():
        if name.endswith(".attn.q_bias"):
            prefix = name.removesuffix("q_bias")
            value = _partner(state_dict, f"{prefix}v_bias", name)
            result[f"{prefix}qkv.bias"] = torch.cat([tensor, torch.zeros_like(tensor), value])
        elif not name.endswith(".attn.v_bias"):
            result[_renamed(name, "timm", "meta", "blocks.{}", gated)] = tensor
    return result


def meta_to_hf(state_dict: StateDict, *, layer_prefix: str = "model.layer") -> dict[str, Tensor]:
    """Converts to the names of Hugging Face's `DINOv3ViTModel`.

    The joint projection of queries, keys and values is split in three. Biases are masked; the key bias is kept only if
    it is non-zero (`key_bias=True` in the model's config).

    Args:
        state_dict: with Meta's names.
        layer_prefix: prefix of block numbers: `model.layer` in transformers 5, `layer` in 4.56.
    """
    gated = _gated_blocks(state_dict)
    result = {}
    for name, tensor in state_dict.items():
        if name in _META_CONSTANTS or _is_qkv_bias(name):
            continue
        renamed = _renamed(name, "meta", "huggingface", f"{layer_prefix}.{{}}", gated)
        if renamed.endswith(".attention.qkv.weight"):
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                result[renamed.replace("qkv", f"{part}_proj")] = third
        else:
            result[renamed] = tensor.unsqueeze(0) if name == "mask_token" else tensor
    for block in _blocks(state_dict):
        if f"blocks.{block}.attn.qkv.bias" in state_dict:
            for part, bias in zip("qkv", _effective_biases(state_dict, block), strict=True):
                if part != "k" or bias.any():
                    result[f"{layer_prefix}.{block}.attention.{part}_proj.bias"] = bias
    return result


def hf_to_meta(state_dict: StateDict) -> dict[str, Tensor]:
    """Converts from the names of Hugging Face's `DINOv3ViTModel` in transformers 4.56 or 5.

    Queries, keys and values are concatenated; missing biases are zero.

    Raises:
        DataError: a block lacks its queries, keys or values.
    """
    gated = _gated_blocks(state_dict)
    result = {}
    for name, tensor in state_dict.items():
        if re.search(r"\.attention\.[qkv]_proj\.(weight|bias)$", name):
            continue
        renamed = _renamed(name, "huggingface", "meta", "blocks.{}", gated)
        result[renamed] = tensor.squeeze(0) if renamed == "mask_token" and tensor.ndim == 3 else tensor
    for name in state_dict:
        if name.endswith(".attention.q_proj.weight"):
            prefix = name.removesuffix("q_proj.weight")
            block = _BLOCK.fullmatch(name)[1]
            weights = [_partner(state_dict, f"{prefix}{part}_proj.weight", name) for part in "qkv"]
            result[f"blocks.{block}.attn.qkv.weight"] = torch.cat(weights)
            biases = [state_dict.get(f"{prefix}{part}_proj.bias") for part in "qkv"]
            if any(bias is not None for bias in biases):
                zero = weights[0].new_zeros(len(weights[0]))
                result[f"blocks.{block}.attn.qkv.bias"] = torch.cat([zero if b is None else b for b in biases])
    return result


def k_masked(length: int) -> Tensor:
    """Mask of a joint bias of `length` 3 D that disables the key bias: ones, with zeros in the middle third."""
    mask = torch.ones(length)
    mask[length // 3 : 2 * length // 3] = 0
    return mask


def _renamed(name: str, source: Format, target: Format, block_name: str, gated: set[str]) -> str:
    """Converts a name; `block_name` is the target's path of a block with {} for its number."""
    match = _BLOCK.fullmatch(name)
    if match is None:
        return _replaced(name, _OUTSIDE_BLOCKS, source, target)
    number, inner = match.groups()
    table = _IN_A_BLOCK + (_GATED_MLP if number in gated else _PLAIN_MLP)
    return f"{block_name.format(number)}.{_replaced(inner, table, source, target)}"


def _replaced(name: str, table: tuple[tuple[str, str, str], ...], source: Format, target: Format) -> str:
    for row in table:
        theirs = row[_COLUMN[source]]
        if name == theirs or name.startswith(f"{theirs}."):
            return row[_COLUMN[target]] + name[len(theirs) :]
    return name


def _gated_blocks(state_dict: StateDict) -> set[str]:
    """Returns the numbers of the blocks with a gated feed-forward network."""
    gates = {f"{row}.weight" for row in _GATED_MLP[0]}
    return {match[1] for match in map(_BLOCK.fullmatch, state_dict) if match and match[2] in gates}


def _blocks(state_dict: StateDict) -> list[int]:
    return sorted({int(match[1]) for match in map(_BLOCK.fullmatch, state_dict) if match})


def _is_qkv_bias(name: str) -> bool:
    return name.endswith((".attn.qkv.bias", ".attn.qkv.bias_mask"))


def _effective_biases(state_dict: StateDict, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the masked biases of queries, keys and values of a block, each (D,)."""
    prefix = f"blocks.{block}.attn.qkv"
    weight = _partner(state_dict, f"{prefix}.weight", f"blocks.{block}")
    bias = state_dict.get(f"{prefix}.bias")
    if bias is None:
        bias = weight.new_zeros(len(weight))
    mask = state_dict.get(f"{prefix}.bias_mask")
    if mask is not None:
        if mask.isnan().any():  # left uninitialised by the program that saved it
            mask = k_masked(len(bias))
        bias = torch.where(mask.to(bias.device) == 0, 0.0, bias * mask.to(bias))
    return bias.chunk(3)


def _partner(state_dict: StateDict, name: str, present: str) -> Tensor:
    if name not in state_dict:
        raise DataError(f"The weights are incomplete: there is {present}, but no {name}")
    return state_dict[name]


def _describe(state_dict: StateDict) -> str:
    names = sorted(state_dict)
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    shown = f"found {', '.join(names[:_SHOWN_NAMES]) or 'no tensors'}{more}"
    if "pos_embed" in names or "embeddings.position_embeddings" in names:
        return f"{shown}; learned position embeddings belong to DINOv2, MAE or a plain vision transformer"
    if any(name.startswith("stages.") for name in names):
        return f"{shown}; this looks like a ConvNeXt, and only the vision transformers of DINOv3 can be built here"
    return shown
