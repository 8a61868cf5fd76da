"""nnU-Net's default augmentation: rotation, scaling and scanner-like intensity changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform

from nnunetv2.training.data_augmentation.custom_transforms.gamma import GammaTransform
from nnunetv2.training.data_augmentation.custom_transforms.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.data_augmentation.pipeline import (
    Augmentation,
    Transforms,
    training_transforms_of,
    validation_transforms,
    with_probabilities,
)

__all__ = [
    "DEFAULT",
    "LABELS_BY_NEAREST",
    "gamma",
    "low_resolution",
    "noise",
    "training_transforms",
    "validation_transforms",
]


def _intensity(patch_size: Sequence[int], keep_resolution_of: tuple[int, ...] | None) -> Transforms:
    """Noise, blur, brightness, contrast, low resolution and gamma, each with its probability per sample."""
    return with_probabilities(
        (0.1, noise()),
        (0.2, GaussianBlurTransform(blur_sigma=(0.5, 1.0), p_per_channel=0.5)),
        (0.15, MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), synchronize_channels=False)),
        (0.15, ContrastTransform(BGContrast((0.75, 1.25)), preserve_range=True, synchronize_channels=False)),
        (0.25, low_resolution((0.5, 1), keep_resolution_of)),
        (0.1, gamma(p_invert_image=1)),
        (0.3, gamma(p_invert_image=0)),
    )


def noise() -> BasicTransform:
    """Gaussian noise with the same variance in all channels."""
    return GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True)


def low_resolution(scale: tuple[float, float], ignore_axes: tuple[int, ...] | None) -> BasicTransform:
    """Downsamples half of the channels along all axes except `ignore_axes`, and resamples them to their size."""
    return SimulateLowResolutionTransform(
        scale=scale, synchronize_channels=False, synchronize_axes=True, ignore_axes=ignore_axes, p_per_channel=0.5
    )


def gamma(p_invert_image: float) -> BasicTransform:
    """Gamma correction that preserves mean and standard deviation, optionally on the inverted image."""
    return GammaTransform(
        BGContrast((0.7, 1.5)), p_invert_image, synchronize_channels=False, p_per_channel=1, p_retain_stats=1
    )


DEFAULT = Augmentation(
    spatial={
        "p_rotation": 0.2,
        "p_scaling": 0.2,
        "scaling": (0.7, 1.4),
        "p_synchronize_scaling_across_axes": 1,
    },
    before_mirroring=_intensity,
)
LABELS_BY_NEAREST = replace(DEFAULT.interpolating(mode_seg="nearest"), corrupted_labels=1)

training_transforms = training_transforms_of(DEFAULT)
