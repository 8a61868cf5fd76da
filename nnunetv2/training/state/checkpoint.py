"""Training checkpoints: content, writing, selection within a fold, and restoring."""

from __future__ import annotations

import logging
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dinov3.utils.divergence import require_finite_parameters
from dinov3.utils.fused_optimizers import with_own_implementation
from dinov3.utils.network_wrappers import unwrap
from dinov3.utils.tensor_files import require_intact
from nnunetv2.errors import DataError, UsageError, WriteError
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.setup.budget import BudgetInForce
from nnunetv2.utilities.checkpoint_content import check_resumable
from nnunetv2.utilities.checkpoint_io import load_checkpoint, save_checkpoint

FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
PREVIOUS = "checkpoint_latest.prev.pth"  # the one that the latest replaced; upstream's tools do not look for it
BEST = "checkpoint_best.pth"

logger = logging.getLogger(__name__)

_TO_CONTINUE = (FINAL, LATEST, PREVIOUS, BEST)
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")
_SHOWN_KEYS = 5
_GIVEN = "the given checkpoint"

Source = str | os.PathLike | Mapping[str, Any]  # path of a checkpoint, or its content


def load_network_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Loads a complete set of weights; wrapper prefixes in the names are ignored.

    Args:
        source: origin of the weights for error messages.

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
    """Joins the first few items and the number of the others."""
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
    """Returns the most advanced checkpoint of a fold that is intact, None if there is no checkpoint.

    The final one counts, so that continuing a finished training repeats its validation. The best one may be newer than
    the latest, which is written rarely. Damaged checkpoints are passed over with a warning.

    Raises:
        DataError: there are checkpoints, but all of them are damaged.
    """
    epochs: dict[Path, int] = {}
    damages: list[str] = []
    for path in (fold_folder / name for name in _TO_CONTINUE):
        try:
            if path.is_file():
                epochs[path] = _next_epoch(path)
        except DataError as err:
            damages.append(str(err))
    if damages and not epochs:
        raise DataError(
            f"No checkpoint in {fold_folder} can be used: {'; '.join(damages)}. Put back a copy of one of them, "
            f"or leave out --c to start a new training"
        )
    found = max(epochs, key=epochs.get, default=None)  # of equal epochs, the first name
    for damage in damages:
        logger.warning("%s. The training continues from epoch %d of %s", damage, epochs[found], found.name)
    return found


def _next_epoch(path: Path) -> int:
    """Returns the epoch at which an intact checkpoint resumes; -1 if it does not say.

    Raises:
        DataError: the file is damaged.
    """
    require_intact(path)
    return _load_lazily(path).get("current_epoch", -1)


def require_checkpoint(fold_folder: Path, name: str, purpose: str) -> Path:
    """Returns the path of a required checkpoint.

    Raises:
        UsageError: it is missing; the message lists the available ones.
    """
    path = fold_folder / name
    if path.is_file():
        return path
    present = sorted(p.name for p in fold_folder.glob("checkpoint_*.pth"))
    found = f"only {', '.join(present)}" if present else "no checkpoint"
    raise UsageError(
        f"{purpose} needs {name} and {fold_folder} has {found}; finish the training first (--c continues it)"
    )


def validated_checkpoint(restored: tuple[str | None, int | None], epoch: int, num_epochs: int) -> str | None:
    """Returns which checkpoint the current network corresponds to, `final` or `best`; None if unknown.

    Args:
        restored: name and epoch of the last loaded checkpoint; None: none was loaded.
        epoch: next epoch, counted from 0.
        num_epochs: number of epochs of the training.
    """
    name, restored_epoch = restored
    if restored_epoch is not None and restored_epoch == epoch:  # not trained since it was loaded
        return {FINAL: "final", BEST: "best"}.get(name)
    return "final" if epoch >= num_epochs else None


def is_better(ema: float, best: float | None) -> bool:
    """True if a moving average of the Dice is the best so far; NaN never is, and any number beats NaN."""
    return not math.isnan(ema) and (best is None or math.isnan(best) or ema > best)


@dataclass(frozen=True)
class TrainingState:
    """Mutable state of a training, which checkpoints store and a resumed training restores."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    grad_scaler: torch.amp.GradScaler | None
    """None if the precision needs none"""
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None
    """only a per-iteration schedule; others are functions of the epoch and need no state"""
    logger: MetaLogger
    """history of losses and metrics"""
    epoch: int
    """current epoch, counted from 0; equal to `num_epochs` once the training is complete"""
    num_epochs: int
    best_ema: float | None
    """highest moving average of the pseudo Dice, 0 to 1; None before the first"""
    mirror_axes: tuple[int, ...] | None
    """spatial axes along which predictions may be mirrored; None: no mirroring"""


def content_of(
    state: TrainingState,
    *,
    trainer_name: str,
    init_arguments: Mapping[str, Any],
    seed: int | None,
    budget: BudgetInForce | None,
    settings: dict[str, Any] | None,
    record: dict[str, Any] | None,
) -> dict[str, Any]:
    """Builds the content of a checkpoint with nnU-Net's keys, readable by both.

    `current_epoch` is the epoch to resume at: the next one, because checkpoints are written at the end of an epoch, or
    the number of epochs once the training is complete. Additional keys hold the number of epochs, the state of a
    per-iteration schedule, the seed, the length and precision set by the command, the settings of a trainer with a
    configuration file, and the record.

    Args:
        init_arguments: constructor arguments of the trainer.
        settings: settings of a trainer with a configuration file, as plain data.
        record: plans, cases, labels and settings of the training as plain data, to compare when it is resumed.

    Raises:
        DivergedError: parameters of the network are not finite.
    """
    network = unwrap(state.network)
    require_finite_parameters(network)
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": state.optimizer.state_dict(),
        "grad_scaler_state": None if state.grad_scaler is None else state.grad_scaler.state_dict(),
        "logging": state.logger.get_checkpoint(),
        "_best_ema": state.best_ema,
        "current_epoch": state.epoch + (state.epoch < state.num_epochs),
        "init_args": init_arguments,
        "trainer_name": trainer_name,
        "inference_allowed_mirroring_axes": state.mirror_axes,
        "num_epochs": state.num_epochs,
    }
    if state.lr_scheduler is not None:
        content["lr_scheduler_state"] = state.lr_scheduler.state_dict()
    if seed is not None:
        content["seed"] = seed
    if budget is not None:
        content["budget"] = dict(budget.values)
    if settings is not None:
        content["trainer_config"] = settings
    if record is not None:
        content["trained_with"] = record
    return content


def write(content: dict[str, Any], path: str | os.PathLike) -> None:
    """Writes a checkpoint of a fold; the latest one that it replaces is kept as the previous one.

    Raises:
        WriteError: the disk is full, also without the previous checkpoint.
    """
    path = Path(path)
    save_checkpoint(content, path, previous=path.with_name(PREVIOUS), keeps_previous=path.name == LATEST)


def write_final(save: Callable[[str], None], fold_folder: str | os.PathLike) -> None:
    """Writes the final checkpoint by calling `save` with its path.

    Raises:
        WriteError: it could not be written; the message says how to get it.
    """
    try:
        save(os.path.join(fold_folder, FINAL))
    except OSError as err:
        there = [name for name in (LATEST, PREVIOUS, BEST) if Path(fold_folder, name).is_file()]
        start = f"from {there[0]}" if there else "at the beginning, as there is no other checkpoint"
        raise WriteError(
            f"All epochs are trained, but the final checkpoint was not written: {err}. Then repeat the command with "
            f"--c, which goes on {start}"
        ) from err


def remove_superseded(fold_folder: str | os.PathLike) -> None:
    """Deletes the checkpoints that the final one replaces."""
    for name in (LATEST, PREVIOUS):
        (Path(fold_folder) / name).unlink(missing_ok=True)


def read(source: Source, device: torch.device) -> tuple[Mapping[str, Any], str]:
    """Loads the content of a checkpoint with tensors on `device`, and its name for messages.

    Raises:
        DataError: the file is damaged or not a checkpoint, or an entry cannot be used; the message names it.
    """
    if isinstance(source, Mapping):
        return _checked(source, _GIVEN)
    return _checked(load_checkpoint(source, device), os.fspath(source))


def peek(source: Source) -> tuple[Mapping[str, Any], str]:
    """Like `read`, but tensors are loaded lazily."""
    if isinstance(source, Mapping):
        return _checked(source, _GIVEN)
    return _checked(_load_lazily(source), os.fspath(source))


def _load_lazily(path: str | os.PathLike) -> Mapping[str, Any]:
    return load_checkpoint(path, mmap=zipfile.is_zipfile(path))


def _checked(content: Mapping[str, Any], source: str) -> tuple[Mapping[str, Any], str]:
    check_resumable(content, source)
    return content, source


def length_before(content: Mapping[str, Any], source: str) -> int | None:
    """Returns the number of epochs of the training that wrote a checkpoint; None if unknown, as with upstream's."""
    is_final = os.path.basename(source) == FINAL  # written after the last epoch
    return content.get("num_epochs", content["current_epoch"] if is_final else None)


def restore(state: TrainingState, content: Mapping[str, Any], source: str) -> TrainingState:
    """Restores network, optimiser and history of a training from a checkpoint, ours or upstream's.

    Args:
        state: state of an initialised training.
        source: name of the checkpoint for error messages.

    Returns:
        The state to resume with: epoch, best Dice and mirror axes are those of the checkpoint.

    Raises:
        UsageError: the weights do not fit the network, or the checkpoint was exported without optimiser state.
    """
    load_network_weights(state.network, content["network_weights"], source)
    if "optimizer_state" in content:
        state.optimizer.load_state_dict(with_own_implementation(state.optimizer, content["optimizer_state"]))
    elif content["current_epoch"] < state.num_epochs:  # a finished training is only validated, which needs no optimiser
        raise UsageError(
            f"The training in {source} cannot be continued: it was exported without the state of its optimiser. "
            f"Validate it (--val), or start a new training from its weights (-pretrained_weights)"
        )
    if state.grad_scaler is not None and content.get("grad_scaler_state") is not None:
        state.grad_scaler.load_state_dict(content["grad_scaler_state"])
    if state.lr_scheduler is not None and "lr_scheduler_state" in content:
        state.lr_scheduler.load_state_dict(content["lr_scheduler_state"])
    state.logger.load_checkpoint(content["logging"])
    return replace(
        state,
        epoch=content["current_epoch"],
        best_ema=content["_best_ema"],
        mirror_axes=content.get("inference_allowed_mirroring_axes", state.mirror_axes),
    )
