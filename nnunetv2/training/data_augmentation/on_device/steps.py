"""A step of an augmentation in two halves: drawn per sample in a worker, applied per batch on the device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor

Labels = Tensor | list[Tensor]
Parameters = dict[str, Any]
"""tensors that are moved to the device, in nested dicts and lists; other values stay as they are"""


@dataclass
class Sample:
    """A sample in a worker, while the steps draw for it.

    Attributes:
        image: (C, *spatial), what is sent to the device.
        labels: (1 or more, *spatial), what is sent to the device; with `keeps_labels`, transformed by the steps that
            have drawn so far, and in the end the target.
        shape: (C, *spatial) of the image after the steps that have drawn so far.
        keeps_labels: the worker transforms the labels.
        previous_stage: one-hot labels of the previous stage, (L, *spatial).
    """

    image: Tensor
    labels: Labels
    shape: tuple[int, ...]
    keeps_labels: bool
    previous_stage: Tensor | None = None

    def image_like(self) -> Tensor:
        """Stands for the image where only its shape counts; takes no memory."""
        return torch.empty(()).expand(self.shape)


@dataclass
class Batch:
    """A batch on the device: image (B, C, *spatial), and labels (B, 1 or more, *spatial) unless the workers keep them.

    Steps may write to both.
    """

    image: Tensor
    labels: Labels | None


class Step(ABC):
    """One transform of a pipeline.

    Random numbers are drawn in the order in which the pipeline on the CPU draws them: all steps of one sample, then
    those of the next.
    """

    @abstractmethod
    def draw(self, sample: Sample) -> Any:
        """Draws the parameters for one sample, in a worker; None: nothing is to be done."""

    @abstractmethod
    def collate(self, drawn: Sequence[Any], num_channels: int) -> Parameters:
        """Joins the parameters of a batch, in a worker.

        Args:
            drawn: of each sample.
            num_channels: of each image at this step.

        Returns:
            What `apply` gets; it is not called if this is empty.
        """

    @abstractmethod
    def apply(self, batch: Batch, parameters: Parameters) -> None:
        """Changes the batch, on the device."""


class WorkerStep(Step):
    """A step of which the worker does everything while it draws."""

    def collate(self, drawn: Sequence[Any], num_channels: int) -> Parameters:
        return {}

    def apply(self, batch: Batch, parameters: Parameters) -> None:
        raise RuntimeError(f"{type(self).__name__} is done in the workers")


class ChannelStep(Step):
    """A transform that changes some channels of some images, each by its own parameters.

    Args:
        transform: draws the parameters.
        is_applied: draws whether the transform is applied to a sample.
    """

    def __init__(self, transform: BasicTransform, is_applied: Callable[[], bool]) -> None:
        self.transform, self.is_applied = transform, is_applied

    def draw(self, sample: Sample) -> dict[int, Any] | None:
        """Draws the parameters of each channel that is changed, by its number."""
        return (self.draw_channels(sample) or None) if self.is_applied() else None

    @abstractmethod
    def draw_channels(self, sample: Sample) -> dict[int, Any]:
        """As `draw`, once the transform is to be applied."""

    def collate(self, drawn: Sequence[dict[int, Any] | None], num_channels: int) -> Parameters:
        places, values = [], []
        for number, channels in enumerate(drawn):
            for channel, value in (channels or {}).items():
                places.append(number * num_channels + channel)
                values.append(value)
        return {"channels": torch.tensor(places), **self.collate_channels(values)} if places else {}

    @abstractmethod
    def collate_channels(self, values: list[Any]) -> Parameters:
        """Joins the parameters of all channels of a batch that are changed."""

    def apply(self, batch: Batch, parameters: Parameters) -> None:
        channels = batch.image.flatten(0, 1)  # shares its memory
        channels[parameters["channels"]] = self.change(channels[parameters["channels"]], parameters)

    @abstractmethod
    def change(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Returns the changed channels (n, *spatial); may write to the given ones, which are a copy."""


def per_channel(values: Tensor, images: Tensor) -> Tensor:
    """Values (n,) in the shape in which they apply to images (n, *spatial)."""
    return values.view(-1, *[1] * (images.ndim - 1))
