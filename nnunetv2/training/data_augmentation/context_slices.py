"""Augmentation of slices with their neighbours as channels: all slices of a sample change alike.

A sample has C * k channels, the k slices of each channel one after the other. Rotation, scaling and mirroring treat all
channels alike; changes of intensity are drawn for each channel, and would give the slices different contrasts.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import (
    BrightnessAdditiveTransform,
    MultiplicativeBrightnessTransform,
)
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform

from nnunetv2.training.data_augmentation.custom_transforms import gamma as own_gamma

# They do not look at neighbouring voxels, so that they may take the slices of a channel as one image.
_PER_VOXEL = (
    BrightnessAdditiveTransform,
    MultiplicativeBrightnessTransform,
    ContrastTransform,
    GaussianNoiseTransform,
    GammaTransform,
    own_gamma.GammaTransform,
)


def of_context_slices(transform: BasicTransform, num_slices: int) -> BasicTransform:
    """Returns the transform for samples of C * k channels; the one given is not changed.

    Args:
        transform: of a sample of C channels, as trainers' hooks build it.
        num_slices: k.
    """
    if isinstance(transform, ComposeTransforms):
        changed = copy.copy(transform)
        changed.transforms = [of_context_slices(each, num_slices) for each in transform.transforms]
        return changed
    if isinstance(transform, OneOfTransform):
        changed = copy.copy(transform)
        changed.list_of_transforms = [of_context_slices(each, num_slices) for each in transform.list_of_transforms]
        return changed
    if isinstance(transform, RandomTransform):
        changed = copy.copy(transform)
        changed.transform = of_context_slices(transform.transform, num_slices)
        return changed
    if isinstance(transform, _PER_VOXEL):
        return SlicesTogether(transform, num_slices)
    if isinstance(transform, (ImageOnlyTransform, MaskImageTransform)):
        return SlicesAlike(transform, num_slices)
    return transform


class SlicesTogether(BasicTransform):
    """Applies a transform of images to the k slices of each channel as one image (C, k, H, W)."""

    def __init__(self, transform: BasicTransform, num_slices: int) -> None:
        super().__init__()
        self.transform = transform
        self.num_slices = num_slices

    def __call__(self, **sample: Any) -> dict[str, Any]:
        changed = self.transform(**{**sample, "image": sample["image"].unflatten(0, (-1, self.num_slices))})
        return {**changed, "image": changed["image"].flatten(0, 1)}


class SlicesAlike(BasicTransform):
    """Applies a transform of images (C, H, W) to each of the k slices, with what it drew for the middle one."""

    def __init__(self, transform: BasicTransform, num_slices: int) -> None:
        super().__init__()
        self.transform = transform
        self.num_slices = num_slices

    def __call__(self, **sample: Any) -> dict[str, Any]:
        slices = sample["image"].unflatten(0, (-1, self.num_slices)).unbind(1)
        drawn = self.transform.get_parameters(**{**sample, "image": slices[self.num_slices // 2]})
        changed = [self.transform.apply({**sample, "image": one.clone()}, **drawn)["image"] for one in slices]
        return {**sample, "image": torch.stack(changed, dim=1).flatten(0, 1)}
