"""What a training checkpoint holds, which one of a fold to use, and how weights get back into a network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2.errors import UsageError

FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
BEST = "checkpoint_best.pth"

_WRAPPER_PREFIXES = ("module.", "_orig_mod.")
_SHOWN_KEYS = 5


def unwrap(network: nn.Module) -> nn.Module:
    """The network itself, without the wrappers of distributed training and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return getattr(network, "_orig_mod", network)


def network_weights(network: nn.Module) -> OrderedDict[str, torch.Tensor]:
    """State dict of the unwrapped network."""
    return unwrap(network).state_dict()


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
    """The furthest checkpoint of a fold: final, else latest, else best, else None.

    The final one is among them so that continuing a finished training repeats its validation; the best one because
    a training that stopped before the first periodic save has no other.
    """
    return next((fold_folder / name for name in (FINAL, LATEST, BEST) if (fold_folder / name).is_file()), None)


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
    raise UsageError(f"{purpose} needs {name} and {fold_folder} has {found}; finish the training first (--c continues it)")


def scaler_state(scaler: torch.amp.GradScaler | None) -> dict[str, Any] | None:
    """State of the gradient scaler, None where there is none."""
    return None if scaler is None else scaler.state_dict()
