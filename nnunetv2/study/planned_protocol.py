"""Predict what the trainings of a method will record, as far as the trainer determines it before training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov3.utils.precision import resolve_precision
from nnunetv2.comparison.protocol import FoldProtocol
from nnunetv2.training.cost.trainer_cost import precision_on_gpu
from nnunetv2.training.protocol.augmentation import augmentation_description

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_log = logging.getLogger(__name__)

KNOWN_ITEMS = (
    "labels",
    "plans",
    "patch",
    "augmentation",
    "sampling",
    "iterations",
    "batch",
    "precision",
    "mirroring",
)
"""items of a comparison that are known before training"""


@dataclass(frozen=True)
class PlannedSources:
    """Replaces the files of a fold before it is trained."""

    model_folder: Path
    run_line: Mapping[str, Any]
    plans: Mapping[str, Any]
    configuration: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    validation_line: Mapping[str, Any] = field(default_factory=dict)
    debug: Mapping[str, Any] = field(default_factory=dict)

    def debug_value(self, name: str) -> None:
        """Empty: no file records this."""


def planned_protocol(trainer: nnUNetTrainer, fold: str, device: str) -> FoldProtocol:
    """Derive the conditions of a training from its trainer, built on the CPU.

    Args:
        device: device of the later training: `cuda`, `cpu` or `mps`.
    """
    manager = trainer.configuration_manager
    line = {
        "patch_size": [int(size) for size in manager.patch_size],
        "num_epochs": trainer.num_epochs,
        "num_iterations_per_epoch": trainer.num_iterations_per_epoch,
        "batch_size": manager.batch_size,
        "precision": _precision(trainer, device),
        "oversample_foreground_percent": trainer.oversample_foreground_percent,
        "probabilistic_oversampling": bool(trainer.probabilistic_oversampling),
        **_augmentation(trainer),
    }
    # The model folder does not exist yet, and has no path at all while nnUNet_results is unset.
    plans, folder = trainer.plans_manager.plans, Path(trainer.preprocessed_dataset_folder_base)
    sources = PlannedSources(folder, line, plans, manager.configuration, trainer.dataset_json)
    return FoldProtocol(fold, (), sources)


def _precision(trainer: nnUNetTrainer, device: str) -> str:
    return precision_on_gpu(trainer) if device == "cuda" else resolve_precision(trainer.precision, trainer.device)


def _augmentation(trainer: nnUNetTrainer) -> dict[str, Any]:
    """Transforms and mirror axes; empty for a trainer with its own data loaders, which may choose others."""
    hook = "get_dataloaders"
    if next(owner for owner in type(trainer).__mro__ if hook in vars(owner)).__name__ != "nnUNetTrainer":
        return {}
    try:
        transforms = trainer.get_transforms().training
    except Exception as err:  # a user's trainer may depend on state that exists only during training
        _log.info("The augmentation of %s is not known before its training (%s)", type(trainer).__name__, err)
        return {}
    axes = list(trainer.inference_allowed_mirroring_axes or ())
    return {"augmentation": augmentation_description(transforms), "mirror_axes": axes}
