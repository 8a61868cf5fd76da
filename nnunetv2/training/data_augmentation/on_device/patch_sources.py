"""The first step of an augmentation, from crops of cases to patches: rotation and scaling, resizing, or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dinov3.eval.segmentation.data.image_geometry import resize_image, resize_label
from nnunetv2.training.data_augmentation.custom_transforms.spatial import SpatialTransform
from nnunetv2.training.data_augmentation.on_device.affine_batches import AffinePatches, sample_images, sample_labels
from nnunetv2.training.data_augmentation.on_device.steps import Batch, Parameters, Sample
from nnunetv2.training.data_augmentation.resize_crop_flip import ResizedCropTransform


class PatchSource(ABC):
    """Makes the patches of a batch from what the workers have read."""

    @abstractmethod
    def draw(self, sample: Sample, drawn: dict[str, Any]) -> Any:
        """Draws the parameters for one sample in a worker, and reduces the sample to what they need.

        Args:
            drawn: what was drawn before the sample was read, see `draw_crop`.
        """

    @abstractmethod
    def collate(self, samples: Sequence[Sample], drawn: Sequence[Any]) -> Parameters:
        """Joins the crops of a batch and what was drawn for them, in a worker."""

    @abstractmethod
    def patches(self, content: Parameters) -> Batch:
        """Makes the patches, on the device."""


class CropSource(PatchSource):
    """Takes the crops as they are."""

    def draw(self, sample: Sample, drawn: dict[str, Any]) -> None:
        return None

    def collate(self, samples: Sequence[Sample], drawn: Sequence[Any]) -> Parameters:
        return stacked(samples)

    def patches(self, content: Parameters) -> Batch:
        return Batch(content["image"], content.get("labels"))


class AffineSource(PatchSource):
    """Rotates and scales; what is only cropped is cropped in the worker.

    Args:
        transform: draws the patches.
        in_slices: the first axis of a volume keeps its voxels.
    """

    def __init__(self, transform: SpatialTransform, *, in_slices: bool) -> None:
        self.transform, self.in_slices = transform, in_slices

    def draw(self, sample: Sample, drawn: dict[str, Any]) -> Any:
        """Returns the patch; None if the sample is only cropped."""
        parameters = self.transform.get_parameters(image=self._folded(sample.image), **drawn)
        is_cropped = parameters["patch"] is None
        if is_cropped:
            sample.image = self._apply(self.transform._apply_to_image, sample.image, parameters)
        if is_cropped or sample.keeps_labels:
            sample.labels = self._apply(self.transform._apply_to_segmentation, sample.labels, parameters)
        num_kept = 2 if self.in_slices else 1
        sample.shape = (*sample.shape[:num_kept], *map(int, self.transform.patch_size))
        return parameters["patch"]

    def _apply(self, function: Any, array: Tensor, parameters: dict[str, Any]) -> Tensor:
        result = function(self._folded(array), **parameters)
        return result.unflatten(0, array.shape[:2]) if self.in_slices else result

    def _folded(self, array: Tensor) -> Tensor:
        return array.flatten(0, 1) if self.in_slices else array

    def collate(self, samples: Sequence[Sample], drawn: Sequence[Any]) -> Parameters:
        cropped = [number for number, patch in enumerate(drawn) if patch is None]
        turned = [number for number, patch in enumerate(drawn) if patch is not None]
        content: Parameters = {}
        if cropped:
            content["cropped"] = stacked([samples[number] for number in cropped])
        if turned:
            content["turned"] = stacked([samples[number] for number in turned])
            content["matrices"] = torch.stack([torch.from_numpy(drawn[n].matrix).float() for n in turned])
            content["shifts"] = torch.tensor([list(map(float, drawn[n].shift)) for n in turned])
        if cropped and turned:
            order = cropped + turned
            content["places"] = torch.tensor([order.index(number) for number in range(len(order))])
        return content

    def patches(self, content: Parameters) -> Batch:
        parts = [content["cropped"]] if "cropped" in content else []
        if "turned" in content:
            parts.append(self._turned(content))
        if len(parts) == 1:
            return Batch(parts[0]["image"], parts[0].get("labels"))
        joined = {name: torch.cat([part[name] for part in parts])[content["places"]] for name in parts[0]}
        return Batch(joined["image"], joined.get("labels"))

    def _turned(self, content: Parameters) -> Parameters:
        transform, crops = self.transform, content["turned"]
        patches = AffinePatches(content["matrices"], content["shifts"], tuple(map(int, transform.patch_size)))
        first = 2 if self.in_slices else 1  # slices are turned as if they were channels
        outside = transform.padding_value_image if transform.padding_mode_image == "constant" else 0
        images = sample_images(crops["image"].flatten(1, first), patches, outside)
        turned = {"image": images.unflatten(1, crops["image"].shape[1 : 1 + first])}
        if "labels" in crops:
            outside = int(transform.padding_value_seg) if transform.border_mode_seg == "constant" else 0
            by_nearest = transform.mode_seg == "nearest"
            labels = sample_labels(crops["labels"].flatten(1, first), patches, outside, by_nearest=by_nearest)
            turned["labels"] = labels.unflatten(1, crops["labels"].shape[1 : 1 + first])
        return turned


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

    def collate(self, samples: Sequence[Sample], drawn: Sequence[Any]) -> Parameters:
        content: Parameters = {"images": [sample.image.contiguous() for sample in samples]}
        if not samples[0].keeps_labels:
            content["labels"] = [sample.labels.contiguous() for sample in samples]
        return content

    def patches(self, content: Parameters) -> Batch:
        size = self.transform.patch_size
        images = torch.stack([resize_image(image, size) for image in content["images"]])
        if "labels" not in content:
            return Batch(images, None)
        labels = [torch.stack([resize_label(each, size) for each in channels]) for channels in content["labels"]]
        return Batch(images, torch.stack(labels))


def stacked(samples: Sequence[Sample]) -> Parameters:
    """Images and, unless the workers keep them, labels of samples of one shape."""
    content: Parameters = {"image": torch.stack([sample.image for sample in samples])}
    if not samples[0].keeps_labels:
        content["labels"] = torch.stack([sample.labels for sample in samples])
    return content
