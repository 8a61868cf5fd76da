"""What a training has to share with others to be compared with them, and what it started from; for `metrics.jsonl`."""

from __future__ import annotations

import hashlib
import inspect
import os
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json
from nnunetv2.inference.logit_predictor import LogitPredictor, uses_sliding_window
from nnunetv2.training.protocol.augmentation import augmentation_steps
from nnunetv2.training.protocol.hashes import cases_description, content_hash
from nnunetv2.training.protocol.weights_words import NO_WEIGHTS, RANDOM_WEIGHTS
from nnunetv2.training.state.model_folder import FINGERPRINT

WHOLE_IMAGE = "whole image"  # instead of a tile step
_HEAD_BYTES = 1 << 20  # of a file of weights
_SHORT = 12  # digits of a hash that is shown
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


def pretrained_weights(settings: dict[str, Any] | None, file: str | os.PathLike | None = None) -> str:
    """The weights that a network started from, in a few words; `none given` is what most U-Nets have.

    Args:
        settings: of a trainer of vision transformers, by sections.
        file: that the whole network was loaded from.
    """
    model = (settings or {}).get("model") or {}
    if file is not None:
        return _file_description(Path(file))
    if "pretrained" not in model:
        return NO_WEIGHTS
    backbone = f"{model.get('backbone')} {model.get('backbone_size')}"
    if model.get("checkpoint"):
        return f"{backbone}, {_file_description(Path(model['checkpoint']))}"
    return f"{backbone}, released weights" if model["pretrained"] else f"{backbone}, {RANDOM_WEIGHTS}"


def _file_description(path: Path) -> str:
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:  # moved since the training began
        return path.name
    return f"{path.name} ({size} bytes, head {hashlib.sha256(head).hexdigest()[:_SHORT]})"


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


def augmentation_description(transforms: Any) -> dict[str, Any] | None:
    """The steps of the transforms of a training in words, with their hash; None if they are not known."""
    if transforms is None:
        return None
    steps = augmentation_steps(repr(transforms))
    return {"transforms": steps, "sha256": content_hash(steps)}


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
