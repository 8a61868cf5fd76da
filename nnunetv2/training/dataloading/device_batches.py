"""Batches whose samples are read and drawn in workers, and augmented on the device that trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dinov3.utils import host_copies

if TYPE_CHECKING:
    from nnunetv2.training.dataloading.drawing_loader import DrawingDataLoader


class AugmentedOnDevice:
    """Endless iterator over augmented batches: `data` and, unless the workers make it, `target` are on the device.

    The host does not wait for the device.

    Args:
        batches: iterator over batches of a `DrawingDataLoader`.
        device: where to augment.
    """

    def __init__(self, batches: Any, device: torch.device) -> None:
        self.batches, self.device = batches, device

    def __iter__(self) -> AugmentedOnDevice:
        return self

    def __next__(self) -> dict[str, Any]:
        batch = next(self.batches)
        image, target = self.generator.recipe.apply(_moved(batch["drawn"], self.device))
        return {"data": image, "target": batch["target"] if target is None else target, "keys": batch["keys"]}

    @property
    def generator(self) -> DrawingDataLoader:
        """The loader, under the name that iterators of batchgenerators give it."""
        return getattr(self.batches, "generator", None) or self.batches.data_loader

    @property
    def num_out_of_order(self) -> int:
        return getattr(self.batches, "num_out_of_order", 0)

    def _finish(self) -> None:
        """Stops the workers, if there are any."""
        if hasattr(self.batches, "_finish"):
            self.batches._finish()


def _moved(content: Any, device: torch.device) -> Any:
    """Moves the tensors in nested containers to the device."""
    if isinstance(content, torch.Tensor):
        return host_copies.to_device(content, device)
    if isinstance(content, dict):
        return {name: _moved(item, device) for name, item in content.items()}
    if isinstance(content, list):
        return [_moved(item, device) for item in content]
    return content
