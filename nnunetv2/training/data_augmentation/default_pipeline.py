"""nnU-Net's augmentation, transform by transform, made of batchgeneratorsv2.

Order and numbers decide what a seeded run draws; change them in a trainer of your own, not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchgeneratorsv2.helpers.scalar_type import RandomScalar
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from nnunetv2.errors import UsageError

_OUTSIDE = -1  # label of voxels outside the case, or outside the non-zero region it was cropped to
_PREVIOUS_STAGE_CHANNEL = 1  # of the segmentation, in the cascade

Region = int | Sequence[int]


def training_transforms(
    patch_size: Sequence[int],
    rotation_for_DA: RandomScalar,
    deep_supervision_scales: Sequence[Any] | None,
    mirror_axes: Sequence[int] | None,
    do_dummy_2d_data_aug: bool,
    use_mask_for_norm: Sequence[bool] | None = None,
    is_cascaded: bool = False,
    foreground_labels: Sequence[int] | None = None,
    regions: Sequence[Region] | None = None,
    ignore_label: int | None = None,
) -> BasicTransform:
    """Augmentation of one sample, and its conversion to the network's input and the loss's targets.

    Args:
        patch_size: voxels per axis of the result.
        rotation_for_DA: range of the rotation angle, radians.
        deep_supervision_scales: size of each target relative to the patch, one factor or one per axis; `None`
            gives a single target instead of a list.
        mirror_axes: spatial axes that may be mirrored.
        do_dummy_2d_data_aug: rotate and scale within slices of the first axis only.
        use_mask_for_norm: per channel, whether it is set to 0 outside the non-zero region.
        is_cascaded: the segmentation's second channel is the previous stage's; it becomes image channels.
        foreground_labels: labels of those channels.
        regions: groups of labels to be segmented as (overlapping) regions; `None` keeps the label map.
        ignore_label: becomes a last channel after the regions.
    """
    transforms = [
        *_spatial(patch_size, rotation_for_DA, do_dummy_2d_data_aug),
        *_intensity(low_resolution_ignores=(0,) if do_dummy_2d_data_aug else None),
    ]
    if mirror_axes:
        transforms.append(MirrorTransform(allowed_axes=tuple(mirror_axes)))
    transforms += [*masking(use_mask_for_norm), RemoveLabelTansform(_OUTSIDE, 0)]
    if is_cascaded:
        transforms += [*_previous_stage(foreground_labels), *_corrupt_previous_stage(len(foreground_labels))]
    return ComposeTransforms([*transforms, *_targets(regions, ignore_label, deep_supervision_scales)])


def validation_transforms(
    deep_supervision_scales: Sequence[Any] | None,
    is_cascaded: bool = False,
    foreground_labels: Sequence[int] | None = None,
    regions: Sequence[Region] | None = None,
    ignore_label: int | None = None,
) -> BasicTransform:
    """What `training_transforms` does apart from augmentation; same arguments."""
    transforms = [RemoveLabelTansform(_OUTSIDE, 0)]
    if is_cascaded:
        transforms += _previous_stage(foreground_labels)
    return ComposeTransforms([*transforms, *_targets(regions, ignore_label, deep_supervision_scales)])


def masking(use_mask_for_norm: Sequence[bool] | None) -> list[BasicTransform]:
    """Sets channels to 0 outside the non-zero region, where augmentation has changed them, if they are masked ones."""
    channels = [channel for channel, is_masked in enumerate(use_mask_for_norm or ()) if is_masked]
    return [MaskImageTransform(channels, channel_idx_in_seg=0, set_outside_to=0)] if channels else []


def _spatial(patch_size: Sequence[int], rotation: RandomScalar, in_slices: bool) -> list[BasicTransform]:
    """Rotation and scaling, each in a fifth of the samples, and the crop to the final size."""
    rotate_and_scale = SpatialTransform(
        tuple(patch_size[1:] if in_slices else patch_size),
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=0.2,
        rotation=rotation,
        p_scaling=0.2,
        scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1,
        border_mode_seg="constant",
        padding_value_seg=_OUTSIDE,
    )
    return [Convert3DTo2DTransform(), rotate_and_scale, Convert2DTo3DTransform()] if in_slices else [rotate_and_scale]


def _intensity(low_resolution_ignores: tuple[int, ...] | None) -> list[BasicTransform]:
    """Noise, blur, brightness, contrast, low resolution and gamma, each with its probability per sample."""
    with_probability = [
        (0.1, GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True)),
        # No benchmark of convolution against FFT: kernels of 3 to 7 voxels are convolved faster, and a choice by
        # timing would make seeded runs differ.
        (0.2, GaussianBlurTransform(blur_sigma=(0.5, 1.0), p_per_channel=0.5)),
        (0.15, MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), synchronize_channels=False)),
        (0.15, ContrastTransform(BGContrast((0.75, 1.25)), preserve_range=True, synchronize_channels=False)),
        (0.25, _low_resolution(low_resolution_ignores)),
        (0.1, _gamma(p_invert_image=1)),
        (0.3, _gamma(p_invert_image=0)),
    ]
    return [RandomTransform(transform, apply_probability=share) for share, transform in with_probability]


def _low_resolution(ignore_axes: tuple[int, ...] | None) -> BasicTransform:
    return SimulateLowResolutionTransform(
        scale=(0.5, 1), synchronize_channels=False, synchronize_axes=True, ignore_axes=ignore_axes, p_per_channel=0.5
    )


def _gamma(p_invert_image: float) -> BasicTransform:
    return GammaTransform(
        BGContrast((0.7, 1.5)), p_invert_image, synchronize_channels=False, p_per_channel=1, p_retain_stats=1
    )


def _previous_stage(foreground_labels: Sequence[int] | None) -> list[BasicTransform]:
    if not foreground_labels:
        raise UsageError("a cascade needs foreground_labels, the labels that the previous stage predicts")
    return [MoveSegAsOneHotToDataTransform(_PREVIOUS_STAGE_CHANNEL, foreground_labels, remove_channel_from_source=True)]


def _corrupt_previous_stage(num_labels: int) -> list[BasicTransform]:
    """Makes the previous stage's one-hot channels, the image's last ones, as wrong as real predictions are."""
    morphology = ApplyRandomBinaryOperatorTransform(list(range(-num_labels, 0)), strel_size=(1, 8), p_per_label=0.5)
    removal = RemoveRandomConnectedComponentFromOneHotEncodingTransform(
        list(range(-num_labels, 0)),
        fill_with_other_class_p=0,
        dont_do_if_covers_more_than_x_percent=0.15,
        p_per_label=0.5,
    )
    return [RandomTransform(morphology, apply_probability=0.4), RandomTransform(removal, apply_probability=0.2)]


def _targets(
    regions: Sequence[Region] | None, ignore_label: int | None, deep_supervision_scales: Sequence[Any] | None
) -> list[BasicTransform]:
    """Regions, and one target per supervised resolution, as far as the training has them."""
    transforms: list[BasicTransform] = []
    if regions is not None:
        channels = [*regions] if ignore_label is None else [*regions, ignore_label]
        transforms.append(ConvertSegmentationToRegionsTransform(channels, channel_in_seg=0))
    if deep_supervision_scales is not None:
        transforms.append(DownsampleSegForDSTransform(deep_supervision_scales))
    return transforms
