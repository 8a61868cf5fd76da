"""Steps for labels: in a worker if it keeps them, else on the device; and steps that read or extend them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from torch import Tensor

from nnunetv2.training.data_augmentation.custom_transforms.targets import downsampled
from nnunetv2.training.data_augmentation.on_device.steps import Batch, Labels, Parameters, Sample, Step, WorkerStep

_ALWAYS: Parameters = {"is_applied": True}


class LabelStep(Step):
    """A transform of labels without random numbers."""

    def __init__(self, transform: BasicTransform) -> None:
        self.transform = transform

    def draw(self, sample: Sample) -> None:
        if sample.keeps_labels:
            sample.labels = self.transform(segmentation=sample.labels)["segmentation"]

    def collate(self, drawn: Sequence[Any], num_channels: int) -> Parameters:
        return _ALWAYS

    def apply(self, batch: Batch, parameters: Parameters) -> None:
        if batch.labels is not None:
            batch.labels = self.change(batch.labels)

    @abstractmethod
    def change(self, labels: Labels) -> Labels:
        """Changes the labels of a batch, on the device."""


class RemoveLabelStep(LabelStep):
    """Replaces a label by another."""

    def change(self, labels: Tensor) -> Tensor:
        channels = self.transform.segmentation_channels
        for chosen in [labels] if channels is None else [labels[:, channel] for channel in channels]:
            chosen.masked_fill_(chosen == self.transform.label_value, self.transform.set_to)
        return labels


class RegionsStep(LabelStep):
    """Converts labels to one channel per region."""

    def __init__(self, transform: ConvertSegmentationToRegionsTransform) -> None:
        super().__init__(transform)
        self.regions = [region.int().tolist() for region in transform.regions]  # numbers need no copy to the device

    def change(self, labels: Tensor) -> Tensor:
        chosen = labels[:, self.transform.channel_in_seg]
        members = []
        for first, *others in self.regions:
            is_member = chosen == first
            for label in others:
                is_member |= chosen == label
            members.append(is_member)
        return torch.stack(members, 1)


class ResolutionsStep(LabelStep):
    """Makes one target per supervised resolution."""

    def change(self, labels: Tensor) -> list[Tensor]:
        return [downsampled(labels, scale, num_leading=2) for scale in self.transform.ds_scales]


class WorkerLabelStep(WorkerStep):
    """A transform of labels that only the CPU can do; the worker keeps them."""

    def __init__(self, transform: BasicTransform) -> None:
        self.transform = transform

    def draw(self, sample: Sample) -> None:
        sample.labels = self.transform(segmentation=sample.labels)["segmentation"]


class MaskStep(Step):
    """Sets channels of the image to a value where a label is negative."""

    def __init__(self, transform: MaskImageTransform) -> None:
        self.transform = transform

    def draw(self, sample: Sample) -> Tensor | None:
        """Returns where that is, (*spatial), if the worker keeps the labels."""
        return sample.labels[self.transform.channel_idx_in_seg] < 0 if sample.keeps_labels else None

    def collate(self, drawn: Sequence[Tensor | None], num_channels: int) -> Parameters:
        return _ALWAYS if drawn[0] is None else {"outside": torch.stack(drawn)}

    def apply(self, batch: Batch, parameters: Parameters) -> None:
        outside = parameters.get("outside")
        if outside is None:
            outside = batch.labels[:, self.transform.channel_idx_in_seg] < 0
        for channel in self.transform.apply_to_channels:
            batch.image[:, channel].masked_fill_(outside, self.transform.set_outside_to)


class PreviousStageStep(WorkerStep):
    """Takes the previous stage's channel from the labels, one-hot encoded for the image, in the worker."""

    def __init__(self, transform: BasicTransform) -> None:
        self.transform = transform

    def draw(self, sample: Sample) -> None:
        moved = self.transform(image=torch.empty((0, *sample.shape[1:])), segmentation=sample.labels)
        sample.labels, sample.previous_stage = moved["segmentation"], moved["image"]
        sample.shape = (sample.shape[0] + len(sample.previous_stage), *sample.shape[1:])


class PreviousStageChangeStep(WorkerStep):
    """Corrupts the previous stage's channels in the worker, as finding connected components needs the CPU."""

    def __init__(self, transform: BasicTransform) -> None:
        self.transform = transform

    def draw(self, sample: Sample) -> None:
        # Its channels are counted from the last, so that they need no others before them.
        sample.previous_stage = self.transform(image=sample.previous_stage)["image"]
