"""Geometry of the augmentation: rotation range, mirror axes, size of the initial crop, scales of the targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.errors import UsageError
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

_ANY_ANGLE = 180
_LIMITED_ANGLE_2D = 15  # for elongated patches, which a larger rotation would move out of the image
_LIMITED_ANGLE_3D = 30
_ELONGATED_2D = 1.5  # ratio of the longest to the shortest side
_SCALE_RANGE = (0.85, 1.25)  # upstream's; narrower than the scaling range of the pipeline


class AugmentationGeometry(NamedTuple):
    """Result of `augmentation_geometry` for a patch size.

    Attributes:
        rotation: range of the angle in radians.
        do_dummy_2d: rotate and scale within the slices of the first axis only.
        initial_patch_size: voxels per axis to crop before rotation and scaling.
        mirror_axes: spatial axes that may be mirrored, in training and in test-time augmentation.
    """

    rotation: tuple[float, float]
    do_dummy_2d: bool
    initial_patch_size: np.ndarray
    mirror_axes: tuple[int, ...]


def augmentation_geometry(
    patch_size: Sequence[int], scale_range: tuple[float, float] = _SCALE_RANGE, *, allow_dummy_2d: bool = True
) -> AugmentationGeometry:
    """Selects rotation range, 2-D or 3-D rotation, initial patch size and mirror axes by nnU-Net's rules.

    Args:
        patch_size: patch size of the network, 2 or 3 axes in voxels.
        scale_range: scaling factors that the initial patch must allow for.
        allow_dummy_2d: rotate anisotropic patches in-plane only; false: rotate all 3-D patches in 3-D.

    Raises:
        UsageError: the patch has neither two nor three axes.
    """
    if len(patch_size) not in (2, 3):
        raise UsageError(f"a patch has 2 or 3 axes, the plans say {list(patch_size)}")
    longest = max(patch_size)
    do_dummy_2d = allow_dummy_2d and len(patch_size) == 3 and longest / patch_size[0] > ANISO_THRESHOLD
    if len(patch_size) == 2:
        degrees = _LIMITED_ANGLE_2D if longest / min(patch_size) > _ELONGATED_2D else _ANY_ANGLE
    else:
        degrees = _ANY_ANGLE if do_dummy_2d else _LIMITED_ANGLE_3D

    angle = degrees / 360 * 2 * math.pi
    initial_patch_size = get_patch_size(patch_size, angle, angle, angle, scale_range)
    if do_dummy_2d:
        initial_patch_size[0] = patch_size[0]
    return AugmentationGeometry((-angle, angle), do_dummy_2d, initial_patch_size, tuple(range(len(patch_size))))


def deep_supervision_scales(strides: Sequence[Sequence[int]]) -> list[list[float]]:
    """Size of each supervised output relative to the patch, per axis, highest resolution first.

    Args:
        strides: strides of the encoder stages, per axis. The lowest stage has no output.
    """
    downsampling = np.cumprod(np.vstack(strides), axis=0)
    return (1 / downsampling)[:-1].tolist()
