"""What a training checkpoint holds, which one of a fold to use, and how weights get back into a network."""

from __future__ import annotations

import logging
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dinov3.utils.divergence import require_finite_parameters
from dinov3.utils.network_wrappers import unwrap
from nnunetv2.errors import DataError, UsageError
from nnunetv2.training.setup import budget, seeding
from nnunetv2.utilities.checkpoint_io import load_checkpoint, save_checkpoint

FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
BEST = "checkpoint_best.pth"

logger = logging.getLogger(__name__)

_WRAPPER_PREFIXES = ("module.", "_orig_mod.")
_SHOWN_KEYS = 5


def load_network_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Loads a complete set of weights; wrapper prefixes in the names are ignored.

    Args:
        source: where the weights are from, for the message.

    Raises:
        UsageError: names or shapes differ from the network's.
    """
    target = unwrap(network)
    own = target.state_dict()
    renamed = {_without_wrapper_prefix(name, own): value for name, value in weights.items()}
    problems = weight_differences(renamed, own)
    if problems:
        raise UsageError(
            f"The weights in {source} do not fit the network of this trainer: {shortened(problems)}. Use the plans, "
            f"trainer and settings that they were trained with"
        )
    target.load_state_dict(renamed)


def weight_differences(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    """Lists names that only one side has and tensors whose shapes differ."""
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is not part of the network" for name in given if name not in wanted]
    problems += [
        f"{name} has shape {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    return problems


def shortened(items: list[str]) -> str:
    """The first few items as one phrase, with the number of the others."""
    rest = len(items) - _SHOWN_KEYS
    return "; ".join(items[:_SHOWN_KEYS]) + (f"; and {rest} more" if rest > 0 else "")


def _without_wrapper_prefix(name: str, own: Mapping[str, torch.Tensor]) -> str:
    while name not in own:
        prefix = next((p for p in _WRAPPER_PREFIXES if name.startswith(p)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)
    return name


def checkpoint_to_continue(fold_folder: Path) -> Path | None:
    """The furthest checkpoint of a fold, None if it has none.

    The final one is among them so that continuing a finished training repeats its validation. The best one may have
    been written after the latest, which is written rarely.
    """
    final, latest, best = (fold_folder / name for name in (FINAL, LATEST, BEST))
    if not final.is_file() and latest.is_file() and best.is_file():
        # Its time alone may be that of a copy; only where it is younger is it worth reading both.
        is_younger = best.stat().st_mtime_ns > latest.stat().st_mtime_ns
        return best if is_younger and _next_epoch(best) > _next_epoch(latest) else latest
    return next((path for path in (final, latest, best) if path.is_file()), None)


def _next_epoch(path: Path) -> int:
    """The epoch that a checkpoint goes on with; -1 if it cannot be read."""
    try:
        return load_checkpoint(path).get("current_epoch", -1)
    except DataError as err:
        logger.warning("%s", err)
        return -1


def require_checkpoint(fold_folder: Path, name: str, purpose: str) -> Path:
    """Path of a checkpoint that must be there.

    Raises:
        UsageError: it is not; the message names those that are.
    """
    path = fold_folder / name
    if path.is_file():
        return path
    present = sorted(p.name for p in fold_folder.glob("checkpoint_*.pth"))
    found = f"only {', '.join(present)}" if present else "no checkpoint"
    raise UsageError(
        f"{purpose} needs {name} and {fold_folder} has {found}; finish the training first (--c continues it)"
    )


def is_better(ema: float, best: float | None) -> bool:
    """Whether a moving average of the Dice is the best so far; NaN never is, and anything beats NaN."""
    return not math.isnan(ema) and (best is None or math.isnan(best) or ema > best)


def content_of(trainer: Any) -> dict[str, Any]:
    """What a trainer's checkpoint holds: the keys of nnU-Net, readable by both.

    `current_epoch` is the epoch to go on with: the next one, as checkpoints are written at the end of an epoch, or
    the number of epochs once all are done. Added are the state of a schedule that steps per iteration, the seed, the
    length and precision that the command gave, and the settings of a trainer that has a configuration file.

    Raises:
        DivergedError: the network has parameters that are not finite.
    """
    network = unwrap(trainer.network)
    require_finite_parameters(network)
    scaler = trainer.grad_scaler
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": None if scaler is None else scaler.state_dict(),
        "logging": trainer.logger.get_checkpoint(),
        "_best_ema": trainer._best_ema,
        "current_epoch": trainer.current_epoch + (trainer.current_epoch < trainer.num_epochs),
        "init_args": trainer.my_init_kwargs,
        "trainer_name": type(trainer).__name__,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
    }
    if trainer.scheduler_step_per_iteration:
        content["lr_scheduler_state"] = trainer.lr_scheduler.state_dict()
    if trainer.seed is not None:
        content["seed"] = trainer.seed
    if trainer.budget is not None:
        content["budget"] = dict(trainer.budget.values)
    if trainer.trainer_config is not None:
        content["trainer_config"] = trainer.trainer_config
    return content


def write(trainer: Any, path: str | os.PathLike) -> None:
    """Saves `content_of` a trainer; the file is the old one or the new one at any time."""
    save_checkpoint(content_of(trainer), path)


def remove(fold_folder: str | os.PathLike, name: str) -> None:
    """Deletes a checkpoint of a fold if it is there."""
    (Path(fold_folder) / name).unlink(missing_ok=True)


def prepare(trainer: Any, source: str | os.PathLike | Mapping[str, Any]) -> None:
    """Initialises a trainer that is not yet, with the length and precision of the training that `source` is from.

    Args:
        source: path of the checkpoint, or its content.

    Raises:
        UsageError: the trainer was given another length or precision.
        DataError: the file is damaged or not a checkpoint.
    """
    if trainer.was_initialized:
        return
    content, source = (source, "the given checkpoint") if isinstance(source, Mapping) else (_peek(source), source)
    budget.take_over(trainer, content.get("budget"), os.fspath(source))
    trainer.initialize()


def _peek(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint whose tensors are read only where they are looked at."""
    return load_checkpoint(path, mmap=zipfile.is_zipfile(path))


def restore(trainer: Any, source: str | os.PathLike | Mapping[str, Any]) -> None:
    """Puts what `write` or upstream's trainer saved back into an initialised trainer.

    Args:
        source: path of the checkpoint, or its content.

    Raises:
        UsageError: the weights do not fit the trainer's network, the trainer has another seed or length, or the
            checkpoint was exported without what a training needs to go on.
        DataError: the file is damaged or not a checkpoint.
    """
    content = source if isinstance(source, Mapping) else load_checkpoint(source, trainer.device)
    source = "the given checkpoint" if isinstance(source, Mapping) else os.fspath(source)
    budget.take_over(trainer, content.get("budget"), source)
    seeding.take_over(trainer, content.get("seed"), content["current_epoch"] >= trainer.num_epochs, source)
    load_network_weights(trainer.network, content["network_weights"], source)
    if "optimizer_state" in content:
        trainer.optimizer.load_state_dict(content["optimizer_state"])
    elif content["current_epoch"] < trainer.num_epochs:  # a finished training is only validated
        raise UsageError(
            f"The training in {source} cannot be continued: it was exported without the state of its optimiser. "
            f"Validate it (--val), or start a new training from its weights (-pretrained_weights)"
        )
    if trainer.grad_scaler is not None and content.get("grad_scaler_state") is not None:
        trainer.grad_scaler.load_state_dict(content["grad_scaler_state"])
    if trainer.scheduler_step_per_iteration and "lr_scheduler_state" in content:
        trainer.lr_scheduler.load_state_dict(content["lr_scheduler_state"])
    trainer.logger.load_checkpoint(content["logging"])
    trainer.current_epoch = content["current_epoch"]
    trainer.restored_checkpoint = (os.path.basename(source), trainer.current_epoch)
    trainer._best_ema = content["_best_ema"]
    trainer.inference_allowed_mirroring_axes = content.get(
        "inference_allowed_mirroring_axes", trainer.inference_allowed_mirroring_axes
    )
