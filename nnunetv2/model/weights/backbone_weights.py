"""Loads weights from a file of any known format into a backbone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from dinov3.hub.checkpoint_files import read_network
from dinov3.hub.load_weights import compare, with_input_channels
from dinov3.hub.read_weights import backbone_prefix
from nnunetv2.errors import DataError, UsageError
from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbone_families import settings_for
from nnunetv2.model.backbone_shape import shape_of
from nnunetv2.model.weights.checkpoint_forms import split_network, with_names_of
from nnunetv2.model.weights.load_report import LoadedWeights
from nnunetv2.model.weights.released_weights import find_weights

__all__ = ["find_weights", "load_backbone_weights"]

logger = logging.getLogger(__name__)

_SHOWN_PROBLEMS = 3


def load_backbone_weights(backbone: Backbone, path: Path) -> LoadedWeights:
    """Loads weights into a backbone, with or without LoRA; all tensors or none.

    Accepts the files of `dinov3.hub.checkpoint_files.read_network`, with tensor names of timm, Meta or Hugging Face.
    The backbone may be part of a larger network or training checkpoint; heads, decoders and mask tokens are skipped. A
    position embedding of another image size is resampled. A first convolution with other than three input channels is
    filled by the rule `inflate` of `InputAdapter`.

    Returns:
        What was loaded and what was skipped; the log gets it as one line.

    Raises:
        UsageError: the file has no weights, or its tensors are not finite or do not fit exactly.
    """
    tensors = backbone.vit.state_dict()
    # LoRA keeps the adapted layer as `base_layer`; no weight file contains its own tensors.
    keys = {key.replace(".base_layer.", "."): key for key in tensors if ".lora_" not in key}
    expected = {name: tensors[key] for name, key in keys.items()}
    try:
        network = read_network(path)
        prefix = backbone_prefix(network.tensors)
        inside, left_out = split_network(network.tensors, prefix, expected)
        weights, resampled = with_names_of(expected, inside)
    except DataError as err:
        raise UsageError(str(err) if str(path) in str(err) else f"{path}: {err}") from err
    weights = with_input_channels(weights, backbone.in_channels)
    _require_fit(path, expected, weights)
    _require_finite(path, weights)
    backbone.vit.load_state_dict({key: weights[name] for name, key in keys.items()}, strict=False)
    report = LoadedWeights(path, network.entry, prefix, len(network.tensors) - len(left_out), left_out, resampled)
    logger.info("%s", report)
    return report


def _require_fit(path: Path, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    ours, theirs = shape_of(expected), shape_of(weights)
    if ours and theirs and theirs.differs_from(ours):
        fitting = " or ".join(settings_for(theirs))
        cure = f"set {fitting}, or give other weights" if fitting else "give weights of the model's size"
        raise UsageError(f"{path} does not fit the backbone ({ours}): its weights are {theirs}; {cure}")
    if not expected.keys() & weights.keys():
        raise UsageError(
            f"{path} holds no vision transformer with the names of timm, Meta or Hugging Face, which the backbone "
            f"({ours}) needs; it holds {_some(sorted(weights), ', ')}"
        )
    if problems := compare(expected, weights).problems():
        raise UsageError(
            f"{path} does not fit the backbone ({ours}): {_some(problems)}; give a complete file of pretrained weights"
        )


def _require_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if bad:
        raise UsageError(f"{path} holds values that are not finite, in {_some(bad)}; take an earlier checkpoint")


def _some(words: Sequence[str], separator: str = "; ") -> str:
    more = f" and {len(words) - _SHOWN_PROBLEMS} more" if len(words) > _SHOWN_PROBLEMS else ""
    return separator.join(words[:_SHOWN_PROBLEMS]) + more
