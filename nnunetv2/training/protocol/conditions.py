"""Conditions that must match between compared trainings, and the initial weights; recorded in `metrics.jsonl`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dinov3.utils.atomic_files import read_json
from nnunetv2.inference.logit_predictor import LogitPredictor, uses_sliding_window
from nnunetv2.training.protocol.augmentation import augmentation_description
from nnunetv2.training.protocol.hashes import cases_description, fingerprint_hash
from nnunetv2.training.protocol.weights import pretrained_weights
from nnunetv2.training.state.model_folder import FINGERPRINT

WHOLE_IMAGE = "whole image"  # instead of a tile step
_WRAPPERS = ("generator", "data_loader", "loader")  # attributes under which batch iterators store what they wrap


@dataclass(frozen=True)
class Conditions:
    """Inputs that determine whether a training is comparable with others, and its initial weights."""

    training_batches: object
    """iterator over training batches; its cases and transforms are read if accessible"""
    validation_batches: object
    dataset_folder: str | None
    """preprocessed folder of the dataset, which holds its fingerprint"""
    probabilistic_oversampling: bool
    """foreground is forced by a draw per sample, instead of in the last samples of a batch"""
    is_distributed: bool
    """this process is one of several"""
    has_own_validation: bool
    """the trainer overrides the validation, so mirroring and tiling are unknown"""
    mirror_axes: Sequence[int] | None
    """spatial axes along which the validation mirrors; None: no mirroring"""
    network: nn.Module | None
    optimizer: torch.optim.Optimizer | None
    initial_lr: float
    settings: dict[str, Any] | None
    """settings of a trainer with a configuration file, by section"""
    pretrained_file: str | os.PathLike | None
    """file that the whole network was initialised from"""


def protocol_information(conditions: Conditions) -> dict[str, Any]:
    """Returns the conditions of a training as plain data; None: unknown, because hooks are overridden."""
    training, validation = map(_innermost_loader, (conditions.training_batches, conditions.validation_batches))
    return {
        "split": _split(training, validation),
        "fingerprint_sha256": _fingerprint(conditions.dataset_folder),
        "augmentation": augmentation_description(getattr(training, "transforms", None)),
        **_sampling(training, conditions),
        **_validation_settings(conditions),
        "optimizer": None if conditions.optimizer is None else type(conditions.optimizer).__name__,
        "initial_lr": conditions.initial_lr,
        "pretrained_weights": pretrained_weights(conditions.settings, conditions.pretrained_file),
    }


def _innermost_loader(batches: object) -> object:
    """Unwraps a batch iterator down to the data loader."""
    wrapped = next((getattr(batches, name) for name in _WRAPPERS if getattr(batches, name, None) is not None), None)
    return batches if wrapped is None else _innermost_loader(wrapped)


def _split(training: object, validation: object) -> dict[str, Any] | None:
    parts = {"training": training, "validation": validation}
    identifiers = {part: getattr(loader, "indices", None) for part, loader in parts.items()}
    if any(cases is None for cases in identifiers.values()):
        return None
    return {part: cases_description(cases) for part, cases in identifiers.items()}


def _fingerprint(dataset_folder: str | None) -> str | None:
    path = Path(dataset_folder or "", FINGERPRINT)
    return fingerprint_hash(read_json(path)) if path.is_file() else None


def _sampling(training: object, conditions: Conditions) -> dict[str, Any]:
    is_by_draw = bool(conditions.probabilistic_oversampling)
    # With several processes, each forces a part of the samples; the first does not know the overall share.
    is_shared = conditions.is_distributed and not is_by_draw
    share = None if is_shared else getattr(training, "oversample_foreground_percent", None)
    return {"oversample_foreground_percent": share, "probabilistic_oversampling": is_by_draw}


def _validation_settings(conditions: Conditions) -> dict[str, Any]:
    """Returns mirroring and tiling of the validation, if known."""
    if conditions.has_own_validation:
        return {"mirror_axes": None, "tile_step_size": None}
    step = inspect.signature(LogitPredictor).parameters["tile_step_size"].default
    return {
        "mirror_axes": list(conditions.mirror_axes or ()),
        "tile_step_size": step if uses_sliding_window(conditions.network) else WHOLE_IMAGE,
    }
