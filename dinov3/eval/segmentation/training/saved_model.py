"""The file of a trained model: weights for evaluation, with the settings they belong to."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

from torch import nn

from dinov3.eval.segmentation.training.model_state import frozen_digest, load_trained_state, trained_state
from dinov3.hub.checkpoint_files import read_state_dict
from dinov3.hub.downloads import local_copy
from dinov3.utils.divergence import require_finite_parameters
from dinov3.utils.errors import DataError, UsageError
from dinov3.utils.tensor_files import read_tensors, write_tensors
from dinov3.utils.yaml_config import dotted_items

MODEL_BEST = "model_best.pth"
MODEL_FINAL = "model_final.pth"

# Settings that change predictions without changing names or shapes of weights.
_DECISIVE = (
    "decoder_head.backbone_out_layers",
    "decoder_head.use_backbone_norm",
    "lora.lora_alpha",
    "transforms.mean",
    "transforms.std",
)


def write_model(network: nn.Module, config: Mapping[str, Any], iteration: int, path: str | os.PathLike) -> None:
    """Saves the current trained weights of a model, together with `config` as plain data and `iteration`.

    Raises:
        DivergedError: A parameter is not finite; nothing is written.
    """
    require_finite_parameters(network)
    content = {
        "model": trained_state(network),
        "backbone_digest": frozen_digest(network),
        "config": dict(config),
        "iteration": iteration,
    }
    write_tensors(content, path)


def load_saved_model(model: nn.Module, config: Mapping[str, Any], source: str) -> None:
    """Loads the weights of a file into a model, if its settings give the same predictions as in training.

    Args:
        model: Model built from `config`, with loaded backbone weights.
        config: All settings, as plain data.
        source: Path or URL of a file by `write_model` or `write_checkpoint`, or of any state dict of the model; for the
            latter, settings are not checked.

    Raises:
        UsageError: The file does not exist, or belongs to other settings or another backbone.
        DataError: The file is damaged, or its tensors do not fit the model.
    """
    path = local_copy(source)
    load_trained_state(model, read_state_dict(path), source=source)
    beside = _beside_the_weights(path)
    if "config" not in beside or "backbone_digest" not in beside:
        return
    before, now = dotted_items(beside["config"]), dotted_items(config)
    differences = [
        f"{name} was {before.get(name)} and is {now[name]}" for name in _DECISIVE if before.get(name) != now[name]
    ]
    if differences:
        raise UsageError(
            f"{source} was trained with other settings: {'; '.join(differences)}. Set them back, or start from the "
            f"segmentation_config.yaml of the training"
        )
    has_backbone = before.get("train_backbone")  # fully trained, so it is part of the file
    if not has_backbone and beside["backbone_digest"] != frozen_digest(model):
        raise UsageError(
            f"{source} was trained with other backbone weights; give those it was trained with (model.dino_hub, "
            f"model.pretrained_weights)"
        )


def _beside_the_weights(path: str | os.PathLike) -> Mapping[str, Any]:
    """Returns the content of a file besides the weights; empty if it is not one of ours."""
    if not zipfile.is_zipfile(path):
        return {}
    try:
        content = read_tensors(path, lazily=True)
    except DataError:  # the weights could be read, so the file is intact but from another program
        return {}
    return content if isinstance(content, Mapping) else {}
