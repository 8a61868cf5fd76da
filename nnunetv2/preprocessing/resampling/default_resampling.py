"""nnU-Net's default resampling of images, label maps and logits between voxel spacings.

Images and logits are resized with splines, label maps by a vote of linearly interpolated shares. If one axis is much
coarser than the others, it is resized separately from the in-plane axes (`separate z`), because a spline across thick
slices creates artificial structure between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.errors import UsageError
from nnunetv2.preprocessing.resampling.label_resizing import resize_labels, resize_nearest
from nnunetv2.preprocessing.resampling.separable_matrices import (
    dense_axis_matrix,
    resize_depth,
    resize_planes,
    resize_volume,
)

if TYPE_CHECKING:
    import torch

Spacing = Sequence[float] | np.ndarray
Shape = Sequence[int] | np.ndarray


def get_do_separate_z(spacing: Spacing, anisotropy_threshold: float = ANISO_THRESHOLD) -> bool:
    """True if the coarsest axis is more than `anisotropy_threshold` times as coarse as the finest."""
    return bool(np.max(spacing) / np.min(spacing) > anisotropy_threshold)


def get_lowres_axis(new_spacing: Spacing) -> np.ndarray:
    """Returns the indices of the axes with the largest spacing; several if they tie."""
    spacing = np.asarray(new_spacing)
    return np.flatnonzero(spacing.max() / spacing == 1)


def compute_new_shape(old_shape: Shape, old_spacing: Spacing, new_spacing: Spacing) -> np.ndarray:
    """Computes the voxels per axis that cover the same extent at `new_spacing` (mm), rounded half to even."""
    if not len(old_shape) == len(old_spacing) == len(new_spacing):
        raise UsageError(
            f"Shape {tuple(old_shape)}, old spacing {tuple(old_spacing)} and new spacing {tuple(new_spacing)} "
            f"must have one entry per axis each"
        )
    return np.array(
        [int(round(old / new * size)) for old, new, size in zip(old_spacing, new_spacing, old_shape, strict=True)]
    )


def determine_do_sep_z_and_axis(
    force_separate_z: bool | None,
    current_spacing: Spacing,
    new_spacing: Spacing,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
) -> tuple[bool, int | None]:
    """Decides whether one axis is resized separately, and which.

    Args:
        force_separate_z: True or False overrides; None: decided by the current spacing, then by the new one.
        current_spacing: mm per voxel and axis.
        new_spacing: mm per voxel and axis.
        separate_z_anisotropy_threshold: ratio of spacings above which an image is anisotropic.

    Returns:
        `(True, axis)`, or `(False, None)`; always the latter if several axes tie for the largest spacing, as in (0.24,
        1.25, 1.25): such an image has no single through-plane axis.
    """
    if force_separate_z is not None:
        decisive = current_spacing if force_separate_z else None
    else:
        anisotropic = (
            s for s in (current_spacing, new_spacing) if get_do_separate_z(s, separate_z_anisotropy_threshold)
        )
        decisive = next(anisotropic, None)
    if decisive is None:
        return False, None
    axes = get_lowres_axis(decisive)
    return (True, int(axes[0])) if len(axes) == 1 else (False, None)


def resample_data_or_seg_to_spacing(
    data: np.ndarray,
    current_spacing: Spacing,
    new_spacing: Spacing,
    is_seg: bool = False,
    order: int = 3,
    order_z: int = 0,
    force_separate_z: bool | None = False,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
) -> np.ndarray:
    """Resamples `(C, X, Y, Z)` to `new_spacing`; see `resample_data_or_seg_to_shape` for the arguments."""
    new_shape = compute_new_shape(data.shape[1:], current_spacing, new_spacing)
    separate_z, axis = determine_do_sep_z_and_axis(
        force_separate_z, current_spacing, new_spacing, separate_z_anisotropy_threshold
    )
    return resample_data_or_seg(data, new_shape, is_seg, axis, order, separate_z, order_z=order_z)


def resample_data_or_seg_to_shape(
    data: torch.Tensor | np.ndarray,
    new_shape: Shape,
    current_spacing: Spacing,
    new_spacing: Spacing,
    is_seg: bool = False,
    order: int = 3,
    order_z: int = 0,
    force_separate_z: bool | None = False,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
) -> np.ndarray:
    """Resamples an image, label map or logits to a given shape. The resampling function that plans name.

    Args:
        data: `(C, X, Y, Z)`, array or tensor.
        new_shape: `(X, Y, Z)` of the result.
        current_spacing: mm per voxel; with `new_spacing` it only decides on separate z.
        new_spacing: mm per voxel of the result.
        is_seg: True for label maps.
        order: spline order (in-plane if z is separate).
        order_z: spline order along the separate axis.
        force_separate_z: None: decided by the spacings.
        separate_z_anisotropy_threshold: ratio of spacings above which z is separate.

    Returns:
        `(C, *new_shape)` with the dtype of `data`; `data` itself if it already has that shape.
    """
    if not isinstance(data, np.ndarray):
        data = data.detach().cpu().numpy()
    separate_z, axis = determine_do_sep_z_and_axis(
        force_separate_z, current_spacing, new_spacing, separate_z_anisotropy_threshold
    )
    return resample_data_or_seg(data, new_shape, is_seg, axis, order, separate_z, order_z=order_z)


def resample_data_or_seg(
    data: np.ndarray,
    new_shape: Shape,
    is_seg: bool = False,
    axis: int | None = None,
    order: int = 3,
    do_separate_z: bool = False,
    order_z: int = 0,
    dtype_out: np.dtype | type | None = None,
) -> np.ndarray:
    """Resizes every channel of `(C, X, Y, Z)` to `new_shape`, one after the other.

    Args:
        data: the array to resize.
        new_shape: `(X, Y, Z)` of the result.
        is_seg: True for label maps.
        axis: the axis that is resized separately; required with `do_separate_z`.
        order: spline order, 0 to 5.
        do_separate_z: resize `axis` separately from the other two.
        order_z: spline order along `axis`.
        dtype_out: dtype of the result, by default that of `data`. Values are computed in float64.

    Raises:
        UsageError: `data` is not four-dimensional, `new_shape` does not have three entries, or `axis` is missing.
    """
    new_shape = tuple(int(size) for size in new_shape)
    if data.ndim != 4 or len(new_shape) != 3:
        raise UsageError(f"Resampling takes (channels, x, y, z) to (x, y, z); got {data.shape} to {new_shape}")
    if do_separate_z and axis is None:
        raise UsageError("Resampling with a separate axis needs to be told which axis it is")
    if data.shape[1:] == new_shape:
        return data
    result = np.zeros((data.shape[0], *new_shape), dtype=data.dtype if dtype_out is None else dtype_out)
    for channel, out in zip(data, result, strict=True):
        if do_separate_z:
            # Views with the separate axis in front; writing to `out` fills the result.
            channel, out = np.moveaxis(channel, axis, 0), np.moveaxis(out, axis, 0)
            resize = _resize_labels_separately if is_seg else _resize_image_separately
            resize(channel, order, order_z, out)
        elif is_seg:
            out[...] = resize_labels(channel, new_shape, order)
        else:
            _resize_image(channel, order, out)
    return result


def _resize_image(volume: np.ndarray, order: int, out: np.ndarray) -> None:
    if order == 0:
        out[...] = resize_nearest(volume, out.shape)
    else:
        resize_volume(volume, order, out)


def _resize_image_separately(volume: np.ndarray, order: int, order_z: int, out: np.ndarray) -> None:
    """Resizes the planes `volume[i]` with `order`, then the first axis with `order_z`."""
    if order_z == 0:
        volume = volume[nearest_planes(volume.shape[0], out.shape[0])]
    planes = out if order_z == 0 else np.empty((volume.shape[0], *out.shape[1:]))
    if order == 0:
        planes[...] = resize_nearest(volume, planes.shape)
    else:
        resize_planes(volume, order, planes)
    if order_z > 0:
        resize_depth(planes, order_z, out)


def _resize_labels_separately(labels: np.ndarray, order: int, order_z: int, out: np.ndarray) -> None:
    """Resizes the planes `labels[i]` with `order`, then the first axis with `order_z`."""
    depth, new_depth = labels.shape[0], out.shape[0]
    if order > 1:
        planes = np.stack([resize_labels(plane, out.shape[1:], order) for plane in labels])
    else:
        planes = resize_labels(labels, (depth, *out.shape[1:]), order)
    if order_z == 0 or depth == new_depth:
        out[...] = planes[nearest_planes(depth, new_depth)]
        return
    matrix = dense_axis_matrix(depth, new_depth, order_z)
    for label in np.unique(planes):
        # Labels are written in ascending order where their share exceeds one half; voxels without a majority stay 0.
        share = np.tensordot(matrix, (planes == label).astype(np.float64), axes=1)
        out[np.round(share) > 0.5] = label


def nearest_planes(old_depth: int, new_depth: int) -> np.ndarray:
    """Returns the old plane nearest to the centre of each new plane, rounded as in `scipy.ndimage.map_coordinates`."""
    centres = old_depth / new_depth * (np.arange(new_depth) + 0.5) - 0.5
    planes = np.arange(old_depth, dtype=np.float64)
    return ndimage.map_coordinates(planes, centres[None], order=0, mode="nearest").astype(np.intp)
