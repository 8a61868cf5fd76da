"""What a training has to share with others to be compared with them, and what it started from; for `metrics.jsonl`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json
from nnunetv2.inference.logit_predictor import LogitPredictor, uses_sliding_window
from nnunetv2.training.protocol.augmentation import augmentation_description
from nnunetv2.training.protocol.hashes import cases_description, content_hash
from nnunetv2.training.protocol.weights import pretrained_weights
from nnunetv2.training.state.model_folder import FINGERPRINT

WHOLE_IMAGE = "whole image"  # instead of a tile step
_WRAPPERS = ("generator", "data_loader", "loader")  # names by which iterators over batches keep what they wrap


def protocol_information(trainer: Any) -> dict[str, Any]:
    """Describes the conditions of a training as plain data; None is what a trainer with hooks of its own hides."""
    training, validation = (
        _innermost_loader(getattr(trainer, f"dataloader_{part}", None)) for part in ("train", "val")
    )
    return {
        "split": _split(training, validation),
        "fingerprint_sha256": _fingerprint(trainer.preprocessed_dataset_folder_base),
        "augmentation": augmentation_description(getattr(training, "transforms", None)),
        **_sampling(training, trainer),
        **_validation_settings(trainer),
        "optimizer": None if trainer.optimizer is None else type(trainer.optimizer).__name__,
        "initial_lr": trainer.initial_lr,
        "pretrained_weights": pretrained_weights(trainer.trainer_config, getattr(trainer, "pretrained_file", None)),
    }


def validated_checkpoint(trainer: Any) -> str | None:
    """`final` or `best`: which checkpoint the network of a trainer is; None if that is not known."""
    name, epoch = getattr(trainer, "restored_checkpoint", (None, None))
    if epoch is not None and epoch == trainer.current_epoch:  # not trained since
        return {"checkpoint_final.pth": "final", "checkpoint_best.pth": "best"}.get(name)
    return "final" if trainer.current_epoch >= trainer.num_epochs else None


def _innermost_loader(batches: Any) -> Any:
    """What makes the batches, within the workers around it."""
    wrapped = next((getattr(batches, name) for name in _WRAPPERS if getattr(batches, name, None) is not None), None)
    return batches if wrapped is None else _innermost_loader(wrapped)


def _split(training: Any, validation: Any) -> dict[str, Any] | None:
    parts = {"training": training, "validation": validation}
    identifiers = {part: getattr(loader, "indices", None) for part, loader in parts.items()}
    if any(cases is None for cases in identifiers.values()):
        return None
    return {part: cases_description(cases) for part, cases in identifiers.items()}


def _fingerprint(dataset_folder: str | None) -> str | None:
    path = Path(dataset_folder or "", FINGERPRINT)
    return content_hash(read_json(path)) if path.is_file() else None


def _sampling(training: Any, trainer: Any) -> dict[str, Any]:
    is_by_draw = bool(trainer.probabilistic_oversampling)
    # Of several processes each has a part of the forced samples; the first does not know the share of all of them.
    is_shared = trainer.is_ddp and not is_by_draw
    share = None if is_shared else getattr(training, "oversample_foreground_percent", None)
    return {"oversample_foreground_percent": share, "probabilistic_oversampling": is_by_draw}


def _validation_settings(trainer: Any) -> dict[str, Any]:
    """Mirroring and tiling of the validation; unknown of trainers that have a validation of their own."""
    hook = "perform_actual_validation"
    if next(owner for owner in type(trainer).__mro__ if hook in vars(owner)).__name__ != "nnUNetTrainer":
        return {"mirror_axes": None, "tile_step_size": None}
    step = inspect.signature(LogitPredictor).parameters["tile_step_size"].default
    return {
        "mirror_axes": list(trainer.inference_allowed_mirroring_axes or ()),
        "tile_step_size": step if uses_sliding_window(trainer.network) else WHOLE_IMAGE,
    }
