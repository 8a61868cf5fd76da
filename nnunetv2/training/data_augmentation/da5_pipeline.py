"""The augmentation DA5, stronger than the default: 90-degree rotations, local intensity changes, blanked rectangles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import BrightnessAdditiveTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.local.brightness_gradient import BrightnessGradientAdditiveTransform
from batchgeneratorsv2.transforms.local.local_gamma import LocalGammaTransform
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform
from batchgeneratorsv2.transforms.noise.sharpen import SharpeningTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform

from nnunetv2.training.data_augmentation.custom_transforms.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.data_augmentation.default_pipeline import gamma, low_resolution, noise
from nnunetv2.training.data_augmentation.pipeline import Augmentation, Transforms, with_probabilities

SCALING = (0.7, 1.43)  # factors below 1 shrink the image
_LOCAL_CENTRES = (-0.5, 1.5)  # of local changes, in patch sizes; may lie outside the patch
_SMALLEST_LOCAL_CHANGE = 6  # divisor: a local change spans at least 1/6 of the patch


def _turns_and_intensity(patch_size: Sequence[int], keep_resolution_of: tuple[int, ...] | None) -> Transforms:
    """90-degree rotations, then smoothing, noise, brightness, contrast, low resolution and gamma."""
    median = MedianFilterTransform((2, 8), p_same_for_each_channel=0, p_per_channel=0.5)
    widest = min(1.5, (min(patch_size) - 0.5) / 3)  # reflection padding limits the kernel to the patch
    blur = GaussianBlurTransform((0.3, widest), synchronize_channels=False, synchronize_axes=True, p_per_channel=0.5)
    brightness = BrightnessAdditiveTransform(mu=0, sigma=0.5, synchronize_channels=False, p_per_channel=0.5)
    return [
        *_right_angles(patch_size),
        OneOfTransform(with_probabilities((0.2, median), (0.2, blur))),
        *with_probabilities((0.1, noise()), (0.1, brightness)),
        OneOfTransform(with_probabilities((0.2, _contrast(True)), (0.2, _contrast(False)))),
        *with_probabilities(
            (0.15, low_resolution((0.25, 1), keep_resolution_of)),
            (0.1, gamma(p_invert_image=1)),
            (0.1, gamma(p_invert_image=1)),
        ),
    ]


def _right_angles(patch_size: Sequence[int]) -> Transforms:
    """Rotates and swaps axes of equal length, which keeps the patch's shape; empty if all lengths differ."""
    equals = [sum(other == length for other in patch_size) for length in patch_size]
    if max(equals) < 2:
        return []
    axes = {axis for axis, count in enumerate(equals) if count == max(equals)}
    turn = Rot90Transform(num_axis_combinations=1, num_rot_per_combination=(0, 1, 2, 3), allowed_axes=axes)
    return with_probabilities((0.5, turn), (0.5, TransposeAxesTransform(allowed_axes=axes)))


def _contrast(preserve_range: bool) -> BasicTransform:
    return ContrastTransform(BGContrast((0.5, 2)), preserve_range, synchronize_channels=False, p_per_channel=0.5)


def _local_changes(patch_size: Sequence[int]) -> Transforms:
    """Blanked rectangles, gradients of brightness, local gamma, sharpening."""
    rectangles = BlankRectangleTransform(
        rectangle_size=[[max(1, side // 10), max(2, side // 3)] for side in patch_size],  # [smallest, largest + 1]
        rectangle_value=torch.mean,
        num_rectangles=(1, 5),
        force_square=False,
        p_per_channel=0.5,
    )
    gradient = BrightnessGradientAdditiveTransform(
        scale=_local_scale,
        loc=_LOCAL_CENTRES,
        max_strength=_gradient_strength,
        mean_centered=False,
        same_for_all_channels=False,
        p_per_channel=0.5,
    )
    local_gamma = LocalGammaTransform(
        scale=_local_scale, loc=_LOCAL_CENTRES, gamma=_local_gamma, same_for_all_channels=False, p_per_channel=0.5
    )
    sharpening = SharpeningTransform(strength=(0.1, 1), p_same_for_each_channel=0, p_per_channel=0.5)
    return with_probabilities((0.4, rectangles), (0.3, gradient), (0.3, local_gamma), (0.2, sharpening))


def _local_scale(shape: Sequence[int], axis: int) -> float:
    """Draws the width of a local change along one axis, in voxels: log-uniform up to the patch size."""
    smallest = max(1, shape[axis] // _SMALLEST_LOCAL_CHANGE)
    return np.exp(np.random.uniform(np.log(smallest), np.log(shape[axis])))


def _gradient_strength(image: torch.Tensor, change: np.ndarray) -> float:
    """Draws the largest change of brightness; darker and brighter are equally likely."""
    return _one_of((-5, -1), (1, 5))


def _local_gamma() -> float:
    """Draws the exponent; brighter and darker are equally likely."""
    return _one_of((0.01, 0.8), (1.5, 4))


def _one_of(first: tuple[float, float], second: tuple[float, float]) -> float:
    return np.random.uniform(*(first if np.random.uniform() < 0.5 else second))


DA5 = Augmentation(
    spatial={
        "p_rotation": 0.4,
        "p_rot_per_axis": 0.5,
        "p_scaling": 0.2,
        "scaling": SCALING,
        "p_synchronize_scaling_across_axes": 0,
    },
    before_mirroring=_turns_and_intensity,
    after_mirroring=_local_changes,
    corrupted_labels=1,
)
