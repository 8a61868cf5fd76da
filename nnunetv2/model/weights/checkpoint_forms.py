"""Separates the backbone from the rest of a weight file, and maps its tensor names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from dinov3.hub.key_conversions import find_format, k_masked, meta_to_timm, to_meta
from nnunetv2.model.weights.plain_vit_names import to_timm_names
from nnunetv2.model.weights.position_embedding import fit_position_embedding

# Decoder and mask tokens of masked image modelling; heads of classifiers, of DINO and of iBOT.
_NOT_BACKBONE = re.compile(
    r"(?:embeddings\.)?mask_token|masked_embed|decoder[._].+|(?:head|last_layer)\d?\..+|(?:dino|ibot)_head\..+"
    r"|(?:fc|fc_norm|classifier|pooler|pre_logits|predictor|projector)\..+"
)
# Tensors in DINOv3's files that timm's model lacks: a norm that only pretraining uses, constants, and biases
# that the released weights switch off.
_NOT_IN_TREE = re.compile(r"local_cls_norm\..+")
_NOT_TIMM = re.compile(
    r"local_cls_norm\..+|rope_embed\.periods|blocks\.\d+\.attn\.qkv\.bias(?:_mask)?"
    r"|(?:model\.)?layer\.\d+\.attention\.[qkv]_proj\.bias"
)
_PERIODS, _MASK_TOKEN = "rope_embed.periods", "mask_token"


def split_network(
    tensors: Mapping[str, Tensor], prefix: str, expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Separates the backbone from heads, decoders and other training state.

    Args:
        tensors: all tensors of the file.
        prefix: prefix of the backbone's tensor names.
        expected: the backbone's state dict, which is to be filled.

    Returns:
        The backbone's tensors without the prefix, and the names in the file of all unused tensors.
    """
    is_in_tree = _PERIODS in expected
    passed_over = _NOT_IN_TREE if is_in_tree else _NOT_TIMM
    inside, left_out = {}, []
    for name, tensor in tensors.items():
        inner = name.removeprefix(prefix)
        is_mask_token = inner.endswith(_MASK_TOKEN) and is_in_tree
        if not name.startswith(prefix) or (_NOT_BACKBONE.fullmatch(inner) and not is_mask_token):
            left_out.append(name)
            continue
        inside[inner] = tensor
        if passed_over.fullmatch(inner) and inner not in expected:
            left_out.append(name)
    return inside, tuple(left_out)


def with_names_of(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str | None]:
    """Renames tensors to the expected names and resizes the position embedding.

    Constants that DINOv3's files may lack are added.

    Args:
        expected: the backbone's state dict, which is to be filled.
        weights: tensors with the names of any known library.

    Returns:
        The renamed tensors, not yet checked for fit, and what was resampled, see `fit_position_embedding`.

    Raises:
        DataError: the weights cannot be converted.
    """
    is_dinov3 = find_format(weights) is not None
    if "pos_embed" in expected:
        renamed = to_timm_names(to_meta(weights) if is_dinov3 else weights)
        # timm's models with registers have positions only for the patches.
        return fit_position_embedding(renamed, expected["pos_embed"], has_class_slot="reg_token" not in expected)
    if not is_dinov3:
        return to_timm_names(weights), None
    meta = to_meta(weights)
    return (_completed(meta, expected) if _PERIODS in expected else meta_to_timm(meta)), None


def _completed(meta: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds mask token, periods, biases and their masks if missing; drops the norm of pretraining."""
    result = {name: tensor for name, tensor in meta.items() if not _NOT_IN_TREE.fullmatch(name)}
    for name, tensor in expected.items():
        attention, is_of_attention, _ = name.partition(".qkv.bias")
        if is_of_attention and f"{attention}.qkv.weight" not in meta:
            continue  # the whole block is missing
        if name.endswith("attn.qkv.bias_mask"):
            if name not in result or result[name].isnan().any():  # left uninitialised by the program that saved it
                result[name] = _mask_for(result.get(name.removesuffix("_mask")), len(tensor))
        elif name in result:
            continue
        elif name.endswith("attn.qkv.bias") or name == _MASK_TOKEN:
            result[name] = torch.zeros(tensor.shape)
        elif name == _PERIODS:
            result[name] = tensor
    return result


def _mask_for(bias: Tensor | None, length: int) -> Tensor:
    """Zero for the keys, as the released weights; all ones if the weights have a key bias, which would be lost."""
    mask = k_masked(length)
    has_key_bias = bias is not None and len(bias) == length and bool(bias[mask == 0].any())
    return torch.ones(length) if has_key_bias else mask
