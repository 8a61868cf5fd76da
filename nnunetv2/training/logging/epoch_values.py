"""Measurements of an epoch as plain data: the lines of type `epoch` in `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dinov3.utils.processes.process_group import rank_and_world_size
from nnunetv2.training.logging.local_logger import HISTORY_KEYS, plain

_MIB = 2**20  # bytes


def epoch_values(
    history: Mapping[str, Sequence[Any]],
    epoch: int,
    *,
    names: Sequence[str],
    learning_rates: Sequence[float],
    training_seconds: float | None,
    num_samples: int,
    device: torch.device,
) -> dict[str, Any]:
    """Collects the history of an epoch and its cost; None for unknown values.

    Args:
        history: values of all epochs by key, including custom keys.
        names: names of the foreground classes or regions.
        learning_rates: one per parameter group.
        training_seconds: duration of the training steps.
        num_samples: number of training samples over all processes.
        device: device of this process.
    """
    values = history_of(history, epoch)
    start, end = values["epoch_start_timestamps"], values["epoch_end_timestamps"]
    return {
        **{key: value for key, value in values.items() if key not in HISTORY_KEYS},
        "train_loss": values["train_losses"],
        "val_loss": values["val_losses"],
        "mean_fg_dice": values["mean_fg_dice"],
        "ema_fg_dice": values["ema_fg_dice"],
        "dice": _by_name(values["dice_per_class_or_region"] or [], names),
        "lr": list(learning_rates),
        "seconds": None if start is None or end is None else end - start,
        "train_seconds": training_seconds,
        "samples_per_second": num_samples / training_seconds if training_seconds else None,
        "world_size": rank_and_world_size()[1],
        **peak_gpu_memory(device),
    }


def history_of(history: Mapping[str, Sequence[Any]], epoch: int) -> dict[str, Any]:
    """Returns the values of one epoch as Python numbers and lists, under upstream's and all other keys."""
    series = {key: history.get(key, ()) for key in (*HISTORY_KEYS, *history)}
    return {key: plain(values[epoch]) if epoch < len(values) else None for key, values in series.items()}


def _by_name(scores: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    """Maps scores to class names; classes that dataset.json does not list are numbered."""
    names = list(names) if len(names) == len(scores) else [f"class_{number}" for number in range(1, len(scores) + 1)]
    return dict(zip(names, scores, strict=True))


def peak_gpu_memory(device: torch.device) -> dict[str, float | None]:
    """Peak memory of this process in MiB: allocated by tensors, and reserved by torch."""
    is_cuda = device.type == "cuda"
    return {
        "peak_gpu_memory_mib": torch.cuda.max_memory_allocated(device) / _MIB if is_cuda else None,
        "peak_gpu_memory_reserved_mib": torch.cuda.max_memory_reserved(device) / _MIB if is_cuda else None,
    }
