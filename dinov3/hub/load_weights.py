"""Loads weights in any known format into a model, and reports mismatches."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from dinov3.hub.architectures import describe_shapes
from dinov3.hub.key_conversions import k_masked
from dinov3.hub.read_weights import read_weights
from dinov3.utils.errors import DataError, UsageError

logger = logging.getLogger(__name__)

_STEM = "patch_embed.proj.weight"
RGB = 3
_SHOWN_PROBLEMS = 3


@dataclass(frozen=True)
class LoadReport:
    """Comparison of the tensors in a file with those of a model; names are the model's."""

    missing: tuple[str, ...]
    """In the model but not in the file; they keep their values."""
    unexpected: tuple[str, ...]
    """In the file but not in the model."""
    filled: tuple[str, ...]
    """Missing or uninitialised in the file, and set to the only possible value."""
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Name, shape in the file, shape in the model."""

    def problems(self) -> list[str]:
        """Returns one sentence per mismatched tensor."""
        return [
            *(f"{name} is missing" for name in self.missing),
            *(f"{name} is not part of the model" for name in self.unexpected),
            *(f"{name} has shape {given} instead of {expected}" for name, given, expected in self.mismatched),
        ]


def compare(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> LoadReport:
    """Compares names and shapes without loading anything."""
    shapes = {
        name: (tuple(given[name].shape), tuple(tensor.shape)) for name, tensor in expected.items() if name in given
    }
    return LoadReport(
        missing=tuple(name for name in expected if name not in given),
        unexpected=tuple(name for name in given if name not in expected),
        filled=(),
        mismatched=tuple((name, theirs, ours) for name, (theirs, ours) in shapes.items() if theirs != ours),
    )


def load_weights(
    model: nn.Module,
    source: str | os.PathLike | Mapping[str, Tensor],
    *,
    allowed_missing: Sequence[str] = (),
    allowed_unexpected: Sequence[str] = (),
    source_name: str = "The state dict",
) -> LoadReport:
    """Loads weights into a model; all tensors or none.

    Tensors that some formats lack and whose value is determined are filled and reported: the bias of queries, keys and
    values (zero) and its mask (0 for the keys), the mask token (zero), the periods of the rotary embedding (computed),
    and the norm that pretraining applies to local crops (the identity).

    Args:
        model: a `DinoVisionTransformer`, or any model with state dict names like those in `source`.
        source: a file or URL, read by `read_weights`, or tensors with the model's names.
        allowed_missing: patterns such as `head.*` of names that may be missing and keep their values.
        allowed_unexpected: patterns of names in `source` that are skipped.
        source_name: name of `source` in messages if it is not a file.

    Returns:
        Missing, unexpected and filled tensors; `mismatched` is empty.

    Raises:
        UsageError: see `read_weights`; or the model is on the meta device.
        DataError: see `read_weights`; or names or shapes do not match beyond what is allowed, or values are not finite.
    """
    if isinstance(source, Mapping):
        given = dict(source)
    else:
        given, source_name = read_weights(source), os.fspath(source).partition("?")[0]
    expected = model.state_dict()
    if any(tensor.is_meta for tensor in expected.values()):
        raise UsageError("The model is on the meta device; give it memory first: model.to_empty(device=...)")
    optional = {name for name in expected if _matches(name, allowed_missing)}
    filled = _defined_values(model, expected.keys() - optional, given)
    complete = given | filled
    report = replace(compare(expected, complete), filled=tuple(filled))
    excess = replace(
        report,
        missing=tuple(name for name in report.missing if name not in optional),
        unexpected=tuple(name for name in report.unexpected if not _matches(name, allowed_unexpected)),
    )
    if excess.problems():
        raise DataError(_refusal(source_name, excess, expected, given))
    usable = {name: complete[name] for name in expected if name in complete}
    _require_finite(source_name, usable)
    model.load_state_dict(usable, strict=False)
    if filled:
        logger.info("%s lacks %d tensors that have defined values: %s", source_name, len(filled), _some(list(filled)))
    return report


def with_input_channels(state_dict: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Adapts the first convolution of an RGB model, with Meta's or timm's names, to another number of channels.

    Channel c uses the kernels of colour c mod 3, times 3 / channels, which preserves the scale of the output. A first
    convolution with other than three channels is not changed.
    """
    result = dict(state_dict)
    stem = result.get(_STEM)
    if stem is not None and stem.shape[1] == RGB != channels:
        logger.info("The first convolution is adapted from RGB to %d channels", channels)
        result[_STEM] = stem[:, [c % RGB for c in range(channels)]] * (RGB / channels)
    return result


def _defined_values(model: nn.Module, wanted: Collection[str], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns values for wanted tensors that `given` lacks and whose value is determined."""
    values = {}
    for name, tensor in model.state_dict().items():
        if name not in wanted:
            continue
        if name.endswith("attn.qkv.bias_mask"):
            if name not in given or given[name].isnan().any():  # may have been saved uninitialised
                values[name] = _mask_of_bias(name, len(tensor), given)
        elif name in given:
            continue
        elif name.endswith(("attn.qkv.bias", "mask_token", "local_cls_norm.bias")):
            values[name] = torch.zeros(tensor.shape)
        elif name.endswith("local_cls_norm.weight"):
            values[name] = torch.ones(tensor.shape)
        elif name.endswith("rope_embed.periods"):
            rope = copy.deepcopy(model.get_submodule(name.removesuffix(".periods")))
            rope.reset_periods()  # a model from the meta device has no values
            values[name] = rope.periods
    return values


def _mask_of_bias(name: str, length: int, given: Mapping[str, Tensor]) -> Tensor:
    bias = given.get(name.removesuffix("_mask"))
    mask = k_masked(length)
    if bias is not None and len(bias) == length and bias[mask == 0].any():
        raise DataError(
            f"{name} is missing, and would switch off the bias on the keys that the weights have; build the model "
            f"with mask_k_bias=False"
        )
    return mask


def _require_finite(source_name: str, tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise DataError(f"{source_name} holds values that are not finite, in {_some(bad)}; take an earlier checkpoint")


def _refusal(source_name: str, excess: LoadReport, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    counts = (
        f"{len(excess.missing)} missing, {len(excess.unexpected)} unexpected, {len(excess.mismatched)} of other shape"
    )
    message = f"{source_name} does not fit the model: {counts} ({_some(excess.problems(), separator='; ')})"
    theirs = describe_shapes({name: tensor.shape for name, tensor in given.items()})
    ours = describe_shapes({name: tensor.shape for name, tensor in expected.items()})
    if theirs and ours and theirs != ours:
        message += f"; these look like weights of {theirs}, the model is {ours}"
    return message


def _some(words: Sequence[str], separator: str = ", ") -> str:
    more = f"{separator}{len(words) - _SHOWN_PROBLEMS} more" if len(words) > _SHOWN_PROBLEMS else ""
    return separator.join(words[:_SHOWN_PROBLEMS]) + more


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
