"""The first step of an augmentation, from crops of cases to patches: rotation and scaling, resizing, or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dinov3.eval.segmentation.data.image_geometry import resize_image, resize_label
from nnunetv2.training.data_augmentation.affine_sampling import AffinePatch
from nnunetv2.training.data_augmentation.custom_transforms.spatial import SpatialTransform
from nnunetv2.training.data_augmentation.on_device.affine_batches import AffinePatches, sample_images, sample_labels
from nnunetv2.training.data_augmentation.on_device.steps import Batch, Parameters, Sample
from nnunetv2.training.data_augmentation.resize_crop_flip import ResizedCropTransform


class PatchSource(ABC):
    """Makes the patches of a batch from what the workers have read.

    Crops are sent one by one: to join them in a worker would copy them once more.
    """

    @abstractmethod
    def draw(self, sample: Sample, drawn: dict[str, Any]) -> Any:
        """Draws the parameters for one sample in a worker, and reduces the sample to what they need.

        Args:
            drawn: what was drawn before the sample was read, see `draw_crop`.
        """

    def collate(self, samples: Sequence[Sample], drawn: Sequence[Any]) -> Parameters:
        """Joins the crops of a batch and what was drawn for them, in a worker."""
        content: Parameters = {"images": [sample.image for sample in samples]}
        if not samples[0].keeps_labels:
            content["labels"] = [sample.labels for sample in samples]
        return content

    @abstractmethod
    def patches(self, content: Parameters) -> Batch:
        """Makes the patches, on the device."""


class CropSource(PatchSource):
    """Takes the crops as they are."""

    def draw(self, sample: Sample, drawn: dict[str, Any]) -> None:
        return None

    def patches(self, content: Parameters) -> Batch:
        return _batch(content["images"], content.get("labels"))


@dataclass(frozen=True)
class _Turn:
    """How a sample is rotated and scaled."""

    patch: AffinePatch
    whole: tuple[int, ...]
    """voxels per axis of the sample"""
    part: tuple[slice, ...]
    """what the patch reads of it"""


class AffineSource(PatchSource):
    """Rotates and scales; what is only cropped is cropped in the worker, of others it sends what their patch reads.

    Args:
        transform: draws the patches.
        in_slices: the first axis of a volume keeps its voxels.
    """

    def __init__(self, transform: SpatialTransform, *, in_slices: bool) -> None:
        self.transform, self.in_slices = transform, in_slices

    def draw(self, sample: Sample, drawn: dict[str, Any]) -> _Turn | None:
        """Returns None if the sample is only cropped."""
        parameters = self.transform.get_parameters(image=self._folded(sample.image), **drawn)
        patch, num_kept = parameters["patch"], 2 if self.in_slices else 1
        turn = None if patch is None else _Turn(patch, sample.shape[num_kept:], patch.covered(sample.shape[num_kept:]))
        if turn is None:
            sample.image = self._apply(self.transform._apply_to_image, sample.image, parameters)
        else:
            sample.image = sample.image[(..., *turn.part)]
        if turn is None or sample.keeps_labels:
            sample.labels = self._apply(self.transform._apply_to_segmentation, sample.labels, parameters)
        else:
            sample.labels = sample.labels[(..., *turn.part)]
        sample.shape = (*sample.shape[:num_kept], *map(int, self.transform.patch_size))
        return turn

    def _apply(self, function: Any, array: Tensor, parameters: dict[str, Any]) -> Tensor:
        result = function(self._folded(array), **parameters)
        return result.unflatten(0, array.shape[:2]) if self.in_slices else result

    def _folded(self, array: Tensor) -> Tensor:
        return array.flatten(0, 1) if self.in_slices else array

    def collate(self, samples: Sequence[Sample], drawn: Sequence[_Turn | None]) -> Parameters:
        content = super().collate(samples, drawn)
        turns = {number: turn for number, turn in enumerate(drawn) if turn is not None}
        if turns:
            content["turns"] = turns
            matrices = [torch.from_numpy(turn.patch.matrix).float() for turn in turns.values()]
            content["matrices"] = torch.stack(matrices)
            content["shifts"] = torch.tensor([list(map(float, turn.patch.shift)) for turn in turns.values()])
        return content

    def patches(self, content: Parameters) -> Batch:
        images, labels = content["images"], content.get("labels")
        if "turns" in content:
            transform, turns = self.transform, content["turns"]
            patches = AffinePatches(content["matrices"], content["shifts"], tuple(map(int, transform.patch_size)))
            outside = transform.padding_value_image if transform.padding_mode_image == "constant" else 0
            images = self._turned(images, turns, partial(sample_images, patches=patches, outside=outside))
            if labels is not None:
                outside = int(transform.padding_value_seg) if transform.border_mode_seg == "constant" else 0
                choice = {"outside": outside, "by_nearest": transform.mode_seg == "nearest"}
                labels = self._turned(labels, turns, partial(sample_labels, patches=patches, **choice))
        return _batch(images, labels)

    def _turned(self, crops: list[Tensor], turns: dict[int, _Turn], sample: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Replaces some crops of a batch by what `sample` makes of them together."""
        num_axes = 2 if self.in_slices else 1  # slices are turned as if they were channels
        leading = crops[0].shape[:num_axes]
        whole = next(iter(turns.values())).whole
        samples = crops[0].new_zeros((len(turns), *leading, *whole))  # what is missing is not read
        for one, (number, turn) in zip(samples, turns.items(), strict=True):
            one[(..., *turn.part)] = crops[number]
        patches = sample(samples.flatten(1, num_axes)).unflatten(1, leading)
        replaced = dict(zip(turns, patches, strict=True))
        return [replaced.get(number, crop) for number, crop in enumerate(crops)]


class ResizeSource(PatchSource):
    """Resizes a part of each sample to the patch; parts of different sizes are resized one by one."""

    def __init__(self, transform: ResizedCropTransform) -> None:
        self.transform = transform

    def draw(self, sample: Sample, drawn: dict[str, Any]) -> None:
        part = self.transform.get_parameters(segmentation=sample.labels)["part"]
        sample.image = sample.image[(slice(None), *part)]
        if sample.keeps_labels:
            sample.labels = self.transform._apply_to_segmentation(sample.labels, part)
        else:
            sample.labels = sample.labels[(slice(None), *part)]
        sample.shape = (sample.shape[0], *self.transform.patch_size)

    def patches(self, content: Parameters) -> Batch:
        size, labels = self.transform.patch_size, content.get("labels")
        images = [resize_image(image, size) for image in content["images"]]
        if labels is not None:
            labels = [torch.stack([resize_label(each, size) for each in channels]) for channels in labels]
        return _batch(images, labels)


def _batch(images: list[Tensor], labels: list[Tensor] | None) -> Batch:
    return Batch(torch.stack(images), None if labels is None else torch.stack(labels))
