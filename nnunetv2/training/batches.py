"""The two endless sources of batches of a training, and a batch on its way to the device."""

from __future__ import annotations

from typing import Any

import torch

from nnunetv2.training.dataloading.augmenters import make_augmenter

Target = torch.Tensor | list[torch.Tensor]


def start_augmenters(train_loader: Any, val_loader: Any, num_processes: int, pin_memory: bool) -> tuple[Any, Any]:
    """Iterators over training and validation batches; validation gets half the processes.

    The first batch of each is drawn and dropped: background processes start here, where an error still stops the
    training before it has written anything.
    """
    train = make_augmenter(train_loader, num_processes, pin_memory=pin_memory)
    half = max(1, num_processes // 2) if num_processes else 0
    val = make_augmenter(val_loader, half, max(3, num_processes // 4), pin_memory=pin_memory)
    next(train)
    next(val)
    return train, val


def stop_augmenters(*augmenters: Any) -> None:
    """Ends background processes; sources that have none, and None, are passed over."""
    for augmenter in augmenters:
        if hasattr(augmenter, "_finish"):
            augmenter._finish()


def to_device(batch: dict[str, Any], device: torch.device) -> tuple[torch.Tensor, Target]:
    """Image and target (one per supervised resolution) of a batch, on the device."""
    target = batch["target"]
    if isinstance(target, list):
        return batch["data"].to(device, non_blocking=True), [t.to(device, non_blocking=True) for t in target]
    return batch["data"].to(device, non_blocking=True), target.to(device, non_blocking=True)
