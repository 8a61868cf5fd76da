"""A pipeline of transforms as steps that are drawn in workers and applied on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.intensity import gamma
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils import deep_supervision_downsampling, remove_label
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from torch import Tensor

from nnunetv2.errors import UsageError
from nnunetv2.training.data_augmentation.custom_transforms import gamma as own_gamma
from nnunetv2.training.data_augmentation.custom_transforms.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.data_augmentation.custom_transforms.spatial import SpatialTransform
from nnunetv2.training.data_augmentation.custom_transforms.targets import (
    DownsampleSegForDSTransform,
    RemoveLabelTransform,
)
from nnunetv2.training.data_augmentation.on_device import intensity_steps, label_steps
from nnunetv2.training.data_augmentation.on_device.geometry_steps import MirrorStep
from nnunetv2.training.data_augmentation.on_device.patch_sources import (
    AffineSource,
    CropSource,
    PatchSource,
    ResizeSource,
)
from nnunetv2.training.data_augmentation.on_device.steps import Batch, Labels, Parameters, Sample, Step
from nnunetv2.training.data_augmentation.resize_crop_flip import ResizedCropTransform

# Classes as they are: a subclass may do something else.
_INTENSITY: dict[type[BasicTransform], type[Step]] = {
    GaussianNoiseTransform: intensity_steps.NoiseStep,
    GaussianBlurTransform: intensity_steps.BlurStep,
    MultiplicativeBrightnessTransform: intensity_steps.BrightnessStep,
    ContrastTransform: intensity_steps.ContrastStep,
    SimulateLowResolutionTransform: intensity_steps.LowResolutionStep,
    gamma.GammaTransform: intensity_steps.GammaStep,
    own_gamma.GammaTransform: intensity_steps.GammaStep,
}
_OTHERS: dict[type[BasicTransform], type[Step]] = {
    MirrorTransform: MirrorStep,
    MaskImageTransform: label_steps.MaskStep,
    remove_label.RemoveLabelTransform: label_steps.RemoveLabelStep,
    RemoveLabelTransform: label_steps.RemoveLabelStep,
    ConvertSegmentationToRegionsTransform: label_steps.RegionsStep,
    deep_supervision_downsampling.DownsampleSegForDSTransform: label_steps.ResolutionsStep,
    DownsampleSegForDSTransform: label_steps.ResolutionsStep,
    MoveSegAsOneHotToDataTransform: label_steps.PreviousStageStep,
}
_CORRUPTIONS = (ApplyRandomBinaryOperatorTransform, RemoveRandomConnectedComponentFromOneHotEncodingTransform)
_NEED_LABELS_IN_WORKERS = (label_steps.WorkerLabelStep, label_steps.PreviousStageStep)


class DrawnSample:
    """A sample that a worker has read, and what was drawn for it.

    Attributes:
        sample: what is sent to the device, and what the worker keeps.
        of_source: drawn by the source.
        of_steps: drawn by each step.
        num_channels: of the image before each step.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.of_source: Any = None
        self.of_steps: list[Any] = []
        self.num_channels: list[int] = []


class Recipe:
    """Steps of an augmentation, see `recipe_of`.

    Attributes:
        keeps_labels: workers transform the labels, because a step or the loss needs them there.
    """

    def __init__(self, source: PatchSource, steps: Sequence[Step], *, keeps_labels: bool) -> None:
        self._source, self._steps, self.keeps_labels = source, list(steps), keeps_labels

    def draw(self, image: Tensor, segmentation: Tensor, drawn: dict[str, Any]) -> DrawnSample:
        """Draws the parameters for one sample, in a worker; arguments as in `nnUNetDataLoader.transform_sample`."""
        sample = Sample(image, segmentation, tuple(image.shape), self.keeps_labels)
        result = DrawnSample(sample)
        result.of_source = self._source.draw(sample, drawn)
        for step in self._steps:
            result.num_channels.append(sample.shape[0])
            result.of_steps.append(step.draw(sample))
        return result

    def collate(self, samples: Sequence[DrawnSample]) -> Parameters:
        """Joins the samples of a batch to what `apply` needs, in a worker; the tensors are to be moved to the device.

        The targets, if the workers make them, are the samples' `labels`.
        """
        crops = [each.sample for each in samples]
        content: Parameters = {"source": self._source.collate(crops, [each.of_source for each in samples])}
        content["steps"] = [
            step.collate([each.of_steps[number] for each in samples], samples[0].num_channels[number])
            for number, step in enumerate(self._steps)
        ]
        if crops[0].previous_stage is not None:
            content["previous_stage"] = torch.stack([crop.previous_stage for crop in crops]).to(torch.uint8)
        return content

    @torch.no_grad()
    def apply(self, content: Parameters) -> tuple[Tensor, Labels | None]:
        """Makes image and target of a batch on the device that holds the tensors; no target if the workers make it."""
        batch: Batch = self._source.patches(content["source"])
        for step, parameters in zip(self._steps, content["steps"], strict=True):
            if parameters:
                step.apply(batch, parameters)
        if "previous_stage" in content:
            batch.image = torch.cat((batch.image, content["previous_stage"].to(batch.image.dtype)), 1)
        return batch.image, batch.labels


def recipe_of(transforms: Any, *, keeps_labels: bool = False) -> Recipe:
    """Takes a pipeline apart.

    Args:
        transforms: a trainer's training transforms.
        keeps_labels: make the targets in the workers also if the device could.

    Raises:
        UsageError: the device cannot apply one of the transforms.
    """
    transforms = _flat(transforms)
    source, number = _source(transforms)
    steps = [_step(transform) for transform in transforms[number:]]
    refused = [transform for transform, step in zip(transforms[number:], steps, strict=True) if step is None]
    moved = [n for n, step in enumerate(steps) if isinstance(step, label_steps.PreviousStageStep)]
    start = number + moved[0] if moved else len(transforms)
    refused += [
        each for each in transforms[start:] if _changes_images(each)
    ]  # would miss the previous stage's channels
    refused += [each for each in transforms[:start] if _is_corruption(each)]  # has no channels to change yet
    if refused:
        names = ", ".join(dict.fromkeys(map(_name, refused)))
        raise UsageError(
            f"-augmentation_device cuda cannot apply {names} of this trainer's augmentation; "
            "leave it out to augment on the CPU, or choose another trainer with -tr"
        )
    need_labels = any(isinstance(step, _NEED_LABELS_IN_WORKERS) for step in steps)
    return Recipe(source, steps, keeps_labels=keeps_labels or need_labels)


def _flat(transforms: Any) -> list[Any]:
    if type(transforms) is not ComposeTransforms:
        return [transforms]
    return [step for transform in transforms.transforms for step in _flat(transform)]


def _source(transforms: Sequence[Any]) -> tuple[PatchSource, int]:
    """The source that a pipeline begins with, and the number of its transforms."""
    kinds = [type(transform) for transform in transforms]
    if kinds[:3] == [Convert3DTo2DTransform, SpatialTransform, Convert2DTo3DTransform] and transforms[1].is_affine():
        return AffineSource(transforms[1], in_slices=True), 3
    if kinds[:1] == [SpatialTransform] and transforms[0].is_affine():
        return AffineSource(transforms[0], in_slices=False), 1
    if kinds[:1] == [ResizedCropTransform]:
        return ResizeSource(transforms[0]), 1
    return CropSource(), 0


def _step(transform: Any) -> Step | None:
    """The step for a transform; None if there is none."""
    if type(transform) in _OTHERS:
        return _OTHERS[type(transform)](transform)
    inner, is_applied = _unwrapped(transform)
    if _is_corruption(transform) and all(channel < 0 for channel in inner.channel_idx):
        return label_steps.PreviousStageChangeStep(transform)
    if _is_of_labels_alone(type(inner)):
        return label_steps.WorkerLabelStep(transform)
    if type(inner) not in _INTENSITY or _looks_at_images(inner):
        return None
    return _INTENSITY[type(inner)](inner, is_applied)


def _unwrapped(transform: Any) -> tuple[Any, Callable[[], bool]]:
    if type(transform) is RandomTransform:
        return transform.transform, _DrawnApplication(transform)
    return transform, _always


class _DrawnApplication:
    """Draws as `RandomTransform` does; a class, because loaders are pickled."""

    def __init__(self, transform: RandomTransform) -> None:
        self._transform = transform

    def __call__(self) -> bool:
        return self._transform.get_parameters()["apply_transform"]


def _always() -> bool:
    return True


def _is_of_labels_alone(kind: type) -> bool:
    """True for transforms, also of users, that neither see nor change the image."""
    own = (kind.apply, kind.get_parameters) if issubclass(kind, SegOnlyTransform) else ()
    return own == (SegOnlyTransform.apply, BasicTransform.get_parameters)


def _looks_at_images(transform: BasicTransform) -> bool:
    """True if a function draws a parameter, which may read the image that the device has not made yet."""
    return any(callable(value) and type(value) is not BGContrast for value in vars(transform).values())


def _changes_images(transform: Any) -> bool:
    inner, _ = _unwrapped(transform)
    return type(inner) in _INTENSITY or type(inner) in (MirrorTransform, MaskImageTransform)


def _is_corruption(transform: Any) -> bool:
    return type(_unwrapped(transform)[0]) in _CORRUPTIONS


def _name(transform: Any) -> str:
    return type(_unwrapped(transform)[0]).__name__
