"""Check the entries of a checkpoint that prediction uses besides the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunetv2.errors import DataError
from nnunetv2.utilities.file_names import check_name, shortened

_NEEDED = ("init_args", "network_weights", "trainer_name")


def check_checkpoint(content: Mapping[str, Any], source: str) -> None:
    """Check trainer, configuration, weights and mirroring axes of a checkpoint.

    Args:
        source: path of the checkpoint, for messages.

    Raises:
        DataError: names the entry, its value and the right form.
    """
    import torch

    missing = [name for name in _NEEDED if name not in content]
    if missing:
        raise DataError(f"{source} is no checkpoint of nnU-Net, it has no {', '.join(missing)}")
    arguments, weights = content["init_args"], content["network_weights"]
    trainer, axes = content["trainer_name"], content.get("inference_allowed_mirroring_axes")
    if not isinstance(arguments, Mapping) or "configuration" not in arguments:
        raise DataError(f'{source}: "init_args" is {shortened(arguments)}; it must name a configuration')
    check_name(arguments["configuration"], f'a configuration ("init_args" of {source})')
    if not isinstance(trainer, str) or not trainer.isidentifier():
        raise DataError(
            f'{source}: "trainer_name" is {shortened(trainer)}; it must be the name of a class, like nnUNetTrainer'
        )
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
