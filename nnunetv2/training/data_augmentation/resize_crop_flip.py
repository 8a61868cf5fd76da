"""The augmentation of the `dinov3` package on nnU-Net's patches: random resize, random crop, horizontal flip.

There is no rotation and no intensity change. The loader still chooses patch positions and oversamples foreground, which
replaces the limit on the largest class of a crop in `dinov3.eval.segmentation.transforms`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from dinov3.eval.segmentation.data.image_geometry import resize_image, resize_label
from nnunetv2.errors import UsageError
from nnunetv2.training.data_augmentation.patch_geometry import AugmentationGeometry
from nnunetv2.training.data_augmentation.pipeline import Region, masking, validation_transforms

RATIO_RANGE = (0.5, 2.0)  # image size in the patch relative to its size in the case
FLIPPED_AXIS = 1  # the columns: left and right


class ResizedCropTransform(BasicTransform):
    """Crops a part of random size and resizes it to the patch: images bilinearly, labels by nearest neighbour.

    The part has the shape of the patch, divided by a uniformly drawn ratio. It lies inside the central patch of the
    sample, or around it if it is larger. A part of at least half the patch therefore keeps the pixel on which the
    loader centred the sample. If the case is large enough, the part does not extend beyond its border. Random numbers
    come from numpy's global generator.

    Args:
        patch_size: height and width of the result, in pixels.
        ratio_range: smallest and largest ratio, above 0; above 1 enlarges the image.
    """

    def __init__(self, patch_size: Sequence[int], ratio_range: tuple[float, float] = RATIO_RANGE) -> None:
        super().__init__()
        self.patch_size = tuple(int(side) for side in patch_size)
        self.ratio_range = ratio_range

    def get_parameters(self, **data_dict: Any) -> dict[str, tuple[slice, slice]]:
        """Draws the rows and columns to crop from `segmentation`, (1, H, W) with -1 outside the case."""
        ratio = np.random.uniform(*self.ratio_range)
        labelled = data_dict["segmentation"][0] >= 0
        rows, columns = (
            _draw_part(labelled.any(dim=1 - axis), side, max(1, round(side / ratio)))
            for axis, side in enumerate(self.patch_size)
        )
        return {"part": (rows, columns)}

    def _apply_to_image(self, img: torch.Tensor, part: tuple[slice, slice]) -> torch.Tensor:
        return resize_image(img[(slice(None), *part)], self.patch_size)

    def _apply_to_segmentation(self, segmentation: torch.Tensor, part: tuple[slice, slice]) -> torch.Tensor:
        return torch.stack([resize_label(channel[part], self.patch_size) for channel in segmentation])


def resize_crop_flip_geometry(patch_size: Sequence[int]) -> AugmentationGeometry:
    """Geometry without rotation: crops as large as the smallest ratio needs, mirroring along `FLIPPED_AXIS` only.

    Args:
        patch_size: patch size of the network, height and width in pixels.

    Raises:
        UsageError: the patch does not have two axes.
    """
    _require_2d(patch_size)
    largest_part = np.array([math.ceil(side / min(RATIO_RANGE)) for side in patch_size])
    return AugmentationGeometry((0.0, 0.0), False, largest_part, (FLIPPED_AXIS,))


def resize_crop_flip_transforms(
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
    """Replaces `default_pipeline.training_transforms`; same arguments.

    Args:
        rotation_for_DA: ignored.
        mirror_axes: spatial axes that are mirrored, each in half of the samples.
        do_dummy_2d_data_aug: ignored.
        foreground_labels: ignored.

    Raises:
        UsageError: the patch does not have two axes, or the configuration is a stage of a cascade.
    """
    _require_2d(patch_size)
    if is_cascaded:
        raise UsageError(
            "Resize, crop and flip cannot augment the previous stage of a cascade; set use_nnunet_augmentation=true"
        )
    return ComposeTransforms(
        [
            ResizedCropTransform(patch_size),
            *([MirrorTransform(allowed_axes=tuple(mirror_axes))] if mirror_axes else []),
            *masking(use_mask_for_norm),
            validation_transforms(deep_supervision_scales, regions=regions, ignore_label=ignore_label),
        ]
    )


def _require_2d(patch_size: Sequence[int]) -> None:
    if len(patch_size) != 2:
        raise UsageError(
            f"Resize, crop and flip is for patches of two axes, the plans say {[int(side) for side in patch_size]}; "
            "train a 2d configuration, or set use_nnunet_augmentation=true"
        )


def _draw_part(is_labelled: torch.Tensor, patch: int, length: int) -> slice:
    """Draws the part of one axis.

    Args:
        is_labelled: for each row (or column) of the sample: true if it has a pixel of the case.
        patch: size of the central patch, in pixels.
        length: length of the part, in pixels; limited to that of the sample.
    """
    size = len(is_labelled)
    length = min(length, size)
    middle = (size - patch) // 2
    first, last = sorted((middle, middle + patch - length))
    start = np.random.randint(first, last + 1)
    within = torch.nonzero(is_labelled)
    # Within the case as far as possible, and then always within the sample.
    if len(within) > 0:
        start = np.clip(start, *sorted((int(within[0]), int(within[-1]) + 1 - length)))
    start = int(np.clip(start, 0, size - length))
    return slice(start, start + length)
