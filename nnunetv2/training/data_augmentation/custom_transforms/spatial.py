"""Rotation, scaling and cropping of a sample, several times faster than in batchgeneratorsv2 and with its results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import sample_scalar
from batchgeneratorsv2.transforms.spatial import spatial
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert3DTo2DTransform

from nnunetv2.training.data_augmentation.affine_sampling import (
    AffinePatch,
    sample_image,
    sample_labels,
    sample_nearest_labels,
)

DRAWN = "drawn_patch"  # key of a sample: the parameters that `draw_crop` has drawn
_CONSTANT = ("zeros", "constant")


class SpatialTransform(spatial.SpatialTransform):
    """As its base class, of which it draws the same numbers in the same order.

    Samples are interpolated by `nnunetv2.training.data_augmentation.affine_sampling`. The base class still does what
    has no such shortcut: elastic deformation, interpolation of images other than linear, `align_corners`, padding by
    reflection or the border, and other tie-breaks than the nearest label. The name is that of the base class, because
    descriptions of trainings hold it.
    """

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Draws the patch; `patch` is None where it is only cropped, or where the base class interpolates."""
        if DRAWN in data_dict:
            return data_dict[DRAWN]
        if not self.is_affine():
            return super().get_parameters(**data_dict) | {"patch": None}
        image = data_dict["image"]
        sizes = image.shape[1:]
        rotates, scales, _ = (
            np.random.uniform() < share for share in (self.p_rotation, self.p_scaling, self.p_elastic_deform)
        )
        angles = self._draw_angles(image, len(sizes)) if rotates else [0] * len(sizes)
        factors = self._draw_factors(image, len(sizes)) if scales else [1] * len(sizes)
        centre = self._draw_centre(sizes)
        patch = None
        if rotates or scales:
            shift = [middle - size / 2 for middle, size in zip(centre, sizes, strict=True)]
            patch = AffinePatch(_matrix(angles, factors), shift, tuple(map(int, self.patch_size)))
        return {"center_location_in_pixels": centre, "patch": patch, "grid": None}

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        data_dict.pop(DRAWN, None)
        return super().apply(data_dict, **params)

    def is_affine(self) -> bool:
        return (
            self.p_elastic_deform == 0
            and not self.align_corners
            and self.mode_image == "bilinear"
            and self.padding_mode_image in _CONSTANT
            and self.mode_seg in ("bilinear", "nearest")
            and self.border_mode_seg in _CONSTANT
            and self.seg_tiebreak == "nearest"
        )

    def _draw_angles(self, image: torch.Tensor, num_axes: int) -> list[float]:
        angles = [sample_scalar(self.rotation, image=image, dim=axis) for axis in range(num_axes)]
        if self.p_rot_per_axis < 1:
            angles = [0 if np.random.uniform() > self.p_rot_per_axis else angle for angle in angles]
        return angles

    def _draw_factors(self, image: torch.Tensor, num_axes: int) -> list[float]:
        if np.random.uniform() <= self.p_synchronize_scaling_across_axes:
            return [sample_scalar(self.scaling, image=image, dim=None)] * num_axes
        return [sample_scalar(self.scaling, image=image, dim=axis) for axis in range(num_axes)]

    def _draw_centre(self, sizes: torch.Size) -> list[float]:
        """Position of the patch's middle in the sample, in voxels from its outer edge."""
        if not self.random_crop:
            return [size / 2 for size in sizes]
        return [
            np.random.uniform(margin, size - margin) if size >= 2 * margin else size / 2
            for size, margin in zip(sizes, self.patch_center_dist_from_border, strict=True)
        ]

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        if params["patch"] is None:
            return super()._apply_to_image(img, **params)
        outside = self.padding_value_image if self.padding_mode_image == "constant" else 0
        return sample_image(img, params["patch"], outside)

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        if params["patch"] is None:
            return super()._apply_to_segmentation(segmentation, **params)
        outside = int(self.padding_value_seg) if self.border_mode_seg == "constant" else 0
        sample = sample_nearest_labels if self.mode_seg == "nearest" else sample_labels
        if segmentation.dtype in (torch.int16, torch.int32, torch.int64):
            return sample(segmentation, params["patch"], outside)
        return sample(segmentation.int(), params["patch"], outside).to(segmentation.dtype)


class DrawnCrop(NamedTuple):
    """What `draw_crop` has drawn for a sample."""

    part: list[slice]
    """what the transforms need of the sample, per axis"""
    for_part: dict[str, Any]
    """to be added to the arguments of the transforms if only that part is read"""
    for_whole: dict[str, Any]
    """the same if the whole sample is read"""


def draw_crop(transforms: Any, sizes: Sequence[int]) -> DrawnCrop | None:
    """Draws the patch before the sample is read, so that no more is read than the patch, if it is only cropped.

    This changes no random number, because the patch is what the transforms draw first.

    Args:
        transforms: a pipeline; only those that start with a `SpatialTransform`, per slice or not, can be asked.
        sizes: spatial shape of the sample.

    Returns:
        None if nothing was drawn.
    """
    steps = transforms.transforms[:2] if type(transforms) is ComposeTransforms else []
    in_slices = bool(steps) and type(steps[0]) is Convert3DTo2DTransform
    transform = steps[in_slices] if len(steps) > in_slices else None
    if type(transform) is not SpatialTransform or not transform.is_affine():
        return None
    if callable(transform.rotation) or callable(transform.scaling):
        return None  # they may look at the image
    turned = sizes[1:] if in_slices else sizes
    drawn = transform.get_parameters(image=torch.empty((1, *turned), device="meta"))
    centre, lengths = drawn["center_location_in_pixels"], transform.patch_size
    crops = [slice(math.floor(c) - n // 2, math.floor(c) - n // 2 + n) for c, n in zip(centre, lengths, strict=True)]
    is_inside = all(crop.start >= 0 and crop.stop <= size for crop, size in zip(crops, turned, strict=True))
    if drawn["patch"] is not None or not is_inside:
        return DrawnCrop([slice(0, size) for size in sizes], {DRAWN: drawn}, {DRAWN: drawn})
    of_part = drawn | {"center_location_in_pixels": [length / 2 for length in lengths]}
    slices = [slice(0, sizes[0])] if in_slices else []
    return DrawnCrop([*slices, *crops], {DRAWN: of_part}, {DRAWN: drawn})


def _matrix(angles: list[float], factors: list[float]) -> np.ndarray:
    if len(factors) == 2:
        return spatial.create_affine_matrix_2d(angles[-1], factors)
    return spatial.create_affine_matrix_3d(angles, factors)
