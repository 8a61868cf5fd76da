"""Check the entries of a checkpoint that prediction and training use besides the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from nnunetv2.errors import DataError
from nnunetv2.utilities.file_names import check_name, shortened

_NEEDED = ("init_args", "network_weights", "trainer_name")
_NEEDED_TO_RESUME = ("network_weights", "current_epoch", "logging", "_best_ema")


def check_checkpoint(content: Mapping[str, Any], source: str) -> None:
    """Check trainer, configuration, weights and mirroring axes of a checkpoint.

    Args:
        source: path of the checkpoint, for messages.

    Raises:
        DataError: names the entry, its value and the right form.
    """
    _require(_NEEDED, content, source)
    _check_weights_and_axes(content, source)
    arguments = content["init_args"]
    trainer = content["trainer_name"]
    if not isinstance(arguments, Mapping) or "configuration" not in arguments:
        raise DataError(f'{source}: "init_args" is {shortened(arguments)}; it must name a configuration')
    check_name(arguments["configuration"], f'a configuration ("init_args" of {source})')
    if not isinstance(trainer, str) or not trainer.isidentifier():
        raise DataError(
            f'{source}: "trainer_name" is {shortened(trainer)}; it must be the name of a class, like nnUNetTrainer'
        )


def check_resumable(content: Mapping[str, Any], source: str) -> None:
    """Check weights, mirroring axes, epoch and history of a checkpoint, ours or upstream's.

    Args:
        source: path of the checkpoint, for messages.

    Raises:
        DataError: names the entry, its value and the right form.
    """
    _require(_NEEDED_TO_RESUME, content, source)
    _check_weights_and_axes(content, source)
    epoch, history, best = content["current_epoch"], content["logging"], content["_best_ema"]
    for entry in ("budget", "trained_with"):
        if not isinstance(content.get(entry, {}), Mapping):
            raise DataError(f'{source}: "{entry}" is {shortened(content[entry])}; it must map names to values')
    if not isinstance(epoch, Integral) or isinstance(epoch, bool) or epoch < 0:
        raise DataError(f'{source}: "current_epoch" is {shortened(epoch)}; it must be a number of epochs, like 50')
    if not isinstance(history, Mapping) or not all(isinstance(values, (list, tuple)) for values in history.values()):
        raise DataError(f'{source}: "logging" is {shortened(history)}; it must map names to a list of values per epoch')
    if best is not None and (not isinstance(best, Real) or isinstance(best, bool)):
        raise DataError(f'{source}: "_best_ema" is {shortened(best)}; it must be a Dice score or None')


def _require(needed: Sequence[str], content: Mapping[str, Any], source: str) -> None:
    missing = [name for name in needed if name not in content]
    if missing:
        raise DataError(f"{source} is no checkpoint of nnU-Net, it has no {', '.join(missing)}")


def _check_weights_and_axes(content: Mapping[str, Any], source: str) -> None:
    import torch

    weights, axes = content["network_weights"], content.get("inference_allowed_mirroring_axes")
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in weights.items()
    ):
        raise DataError(f'{source}: "network_weights" are {shortened(type(weights))}; they must map names to tensors')
    if axes is not None and not (
        isinstance(axes, (list, tuple)) and all(type(axis) is int and 0 <= axis <= 2 for axis in axes)
    ):
        raise DataError(
            f'{source}: "inference_allowed_mirroring_axes" is {shortened(axes)}; it must be axes, like (0, 1)'
        )
