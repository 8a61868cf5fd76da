"""Common structure of nnU-Net's augmentations, built from transforms of batchgeneratorsv2, and its parameters.

Order and numbers determine the random draws of seeded runs: change them in a trainer of your own, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchgeneratorsv2.helpers.scalar_type import RandomScalar
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from nnunetv2.errors import UsageError
from nnunetv2.training.data_augmentation.custom_transforms.targets import (
    DownsampleSegForDSTransform,
    RemoveLabelTransform,
)

_OUTSIDE = -1  # label of voxels outside the case, or outside its non-zero region
_PREVIOUS_STAGE_CHANNEL = 1  # of the segmentation, in the cascade

Region = int | Sequence[int]
Transforms = list[BasicTransform]


def _nothing(patch_size: Sequence[int]) -> Transforms:
    return []


@dataclass(frozen=True)
class Augmentation:
    """The parts in which augmentations differ."""

    spatial: Mapping[str, Any]
    """Arguments of `SpatialTransform` for rotation, scaling and interpolation."""
    before_mirroring: Callable[[Sequence[int], tuple[int, ...] | None], Transforms]
    """Builds the transforms for a patch size; the second argument lists the axes that keep their resolution."""
    after_mirroring: Callable[[Sequence[int]], Transforms] = _nothing
    """Builds the transforms for a patch size."""
    corrupted_labels: float = 0.5
    """Share of the previous stage's labels that may be corrupted, 0 to 1."""

    def interpolating(self, **modes: str) -> Augmentation:
        """Copy with other interpolation modes: `mode_image`, `mode_seg`, each "bilinear" or "nearest"."""
        return replace(self, spatial={**self.spatial, **modes})


def training_transforms_of(augmentation: Augmentation) -> Callable[..., BasicTransform]:
    """Returns the function that builds an augmentation for a dataset, as a trainer's `get_training_transforms`."""

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
        """Builds the augmentation of one sample and its conversion to network input and targets.

        Args:
            patch_size: voxels per axis of the result.
            rotation_for_DA: range of the rotation angle, radians.
            deep_supervision_scales: size of each target relative to the patch, one factor or one per axis; `None`
                gives a single target instead of a list.
            mirror_axes: spatial axes that may be mirrored.
            do_dummy_2d_data_aug: rotate and scale within slices of the first axis only.
            use_mask_for_norm: per channel: set to 0 outside the non-zero region.
            is_cascaded: the segmentation's second channel is the previous stage's and becomes image channels.
            foreground_labels: labels of these channels.
            regions: groups of labels to segment as (overlapping) regions; `None` keeps the label map.
            ignore_label: with regions, becomes the last channel.
        """
        transforms = [
            *_spatial(augmentation.spatial, patch_size, rotation_for_DA, do_dummy_2d_data_aug),
            *augmentation.before_mirroring(patch_size, (0,) if do_dummy_2d_data_aug else None),
        ]
        if mirror_axes:
            transforms.append(MirrorTransform(allowed_axes=tuple(mirror_axes)))
        transforms += augmentation.after_mirroring(patch_size)
        # Masking reads the label -1, so that label is removed only afterwards.
        transforms += [*masking(use_mask_for_norm), RemoveLabelTransform(_OUTSIDE, 0)]
        if is_cascaded:
            transforms += _previous_stage(foreground_labels)
            transforms += _corrupt_previous_stage(len(foreground_labels), augmentation.corrupted_labels)
        return ComposeTransforms([*transforms, *_targets(regions, ignore_label, deep_supervision_scales)])

    return training_transforms


def validation_transforms(
    deep_supervision_scales: Sequence[Any] | None,
    is_cascaded: bool = False,
    foreground_labels: Sequence[int] | None = None,
    regions: Sequence[Region] | None = None,
    ignore_label: int | None = None,
) -> BasicTransform:
    """Builds the conversion of `training_transforms_of` without augmentation; same arguments."""
    transforms = [RemoveLabelTransform(_OUTSIDE, 0)]
    if is_cascaded:
        transforms += _previous_stage(foreground_labels)
    return ComposeTransforms([*transforms, *_targets(regions, ignore_label, deep_supervision_scales)])


def masking(use_mask_for_norm: Sequence[bool] | None) -> Transforms:
    """Resets masked channels to 0 outside the non-zero region, where augmentation has changed them."""
    channels = [channel for channel, is_masked in enumerate(use_mask_for_norm or ()) if is_masked]
    return [MaskImageTransform(channels, channel_idx_in_seg=0, set_outside_to=0)] if channels else []


def with_probabilities(*transforms: tuple[float, BasicTransform]) -> Transforms:
    """Applies each transform with its probability per sample."""
    return [RandomTransform(transform, apply_probability=share) for share, transform in transforms]


def _spatial(
    settings: Mapping[str, Any], patch_size: Sequence[int], rotation: RandomScalar, in_slices: bool
) -> Transforms:
    """Random rotation and scaling, and the crop to the final size."""
    # Here, because it imports pandas: trainers are also imported to predict.
    from nnunetv2.training.data_augmentation.custom_transforms.spatial import SpatialTransform

    rotate_and_scale = SpatialTransform(
        tuple(patch_size[1:] if in_slices else patch_size),
        patch_center_dist_from_border=0,
        random_crop=False,
        rotation=rotation,
        border_mode_seg="constant",
        padding_value_seg=_OUTSIDE,
        **settings,
    )
    return [Convert3DTo2DTransform(), rotate_and_scale, Convert2DTo3DTransform()] if in_slices else [rotate_and_scale]


def _previous_stage(foreground_labels: Sequence[int] | None) -> Transforms:
    if not foreground_labels:
        raise UsageError("a cascade needs foreground_labels, the labels that the previous stage predicts")
    return [MoveSegAsOneHotToDataTransform(_PREVIOUS_STAGE_CHANNEL, foreground_labels, remove_channel_from_source=True)]


def _corrupt_previous_stage(num_labels: int, share: float) -> Transforms:
    """Adds realistic errors to the previous stage's one-hot channels, the last ones of the image."""
    # Here, because they import much of scikit-image.
    from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
    from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
        RemoveRandomConnectedComponentFromOneHotEncodingTransform,
    )

    morphology = ApplyRandomBinaryOperatorTransform(list(range(-num_labels, 0)), strel_size=(1, 8), p_per_label=share)
    removal = RemoveRandomConnectedComponentFromOneHotEncodingTransform(
        list(range(-num_labels, 0)),
        fill_with_other_class_p=0,
        dont_do_if_covers_more_than_x_percent=0.15,
        p_per_label=share,
    )
    return with_probabilities((0.4, morphology), (0.2, removal))


def _targets(
    regions: Sequence[Region] | None, ignore_label: int | None, deep_supervision_scales: Sequence[Any] | None
) -> Transforms:
    """Converts targets to regions and to one target per supervised resolution, if the training uses them."""
    transforms: Transforms = []
    if regions is not None:
        channels = [*regions] if ignore_label is None else [*regions, ignore_label]
        transforms.append(ConvertSegmentationToRegionsTransform(channels, channel_in_seg=0))
    if deep_supervision_scales is not None:
        transforms.append(DownsampleSegForDSTransform(deep_supervision_scales))
    return transforms
