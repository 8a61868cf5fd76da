"""Spline resizing of images as one small matrix per axis.

`skimage.transform.resize(image, shape, order, mode="edge", anti_aliasing=False)` is a linear map that factors over the
axes: a spline prefilter along each axis, then a spline evaluated at the new sample points. Each factor is a matrix of
`(new length, old length)` whose entries decay by a factor of 0.27 per voxel away from the diagonal (order 3), so it is
stored as a few dense blocks along its band and applied by matrix products. The matrices are obtained from scipy itself,
by resizing unit vectors; results differ from skimage's only by rounding (about 1e-15 of the value range).

The result is clipped to the value range of the image, as skimage does by default. A mean of neighbours (order 1)
exceeds the range by a few roundings of float64 at most, which vanish when it is stored in a narrower type.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import torch

# Narrow stripes skip more zeros, until the products get too small for BLAS. The bands of higher orders are wide anyway.
_ROWS_PER_BLOCK = 32
_ROWS_PER_BLOCK_OF_ORDER_1 = 16
_VALUES_PER_GROUP = 2**17  # of planes that are resized together: enough for BLAS, and 1 MB stays in the cache
_NEGLIGIBLE = 1e-16  # entries this small cannot change a float64 sum of entries near 1


@dataclass(frozen=True)
class AxisOperator:
    """The resizing matrix of one axis, stored as horizontal stripes without the zeros.

    `stripes` holds `(rows of the output, columns of the input, dense block)` for consecutive rows.
    """

    old_length: int
    new_length: int
    stripes: tuple[tuple[slice, slice, np.ndarray], ...]

    def along_rows(self, array: np.ndarray) -> np.ndarray:
        """Resizes the last axis but one: `(..., old_length, n) -> (..., new_length, n)`."""
        result = np.empty((*array.shape[:-2], self.new_length, array.shape[-1]))
        for rows, columns, block in self.stripes:
            np.matmul(block, array[..., columns, :], out=result[..., rows, :])
        return result

    def along_columns(self, array: np.ndarray) -> np.ndarray:
        """Resizes the last axis: `(..., old_length) -> (..., new_length)`."""
        result = np.empty((*array.shape[:-1], self.new_length))
        # All rows of all planes in one product.
        array, out = array.reshape(-1, self.old_length), result.reshape(-1, self.new_length)
        for rows, columns, block in self.stripes:
            np.matmul(array[:, columns], block.T, out=out[:, rows])
        return result


def dense_axis_matrix(old_length: int, new_length: int, order: int) -> np.ndarray:
    """Returns the `(new_length, old_length)` matrix by which scipy resizes a 1-D array with `order` in grid mode."""
    zoom = new_length / old_length
    columns = [
        ndimage.zoom(unit_vector, zoom, order=order, mode="nearest", grid_mode=True)
        for unit_vector in np.eye(old_length)
    ]
    return np.stack(columns, axis=1)


@functools.lru_cache(maxsize=32)
def axis_operator(old_length: int, new_length: int, order: int) -> AxisOperator | None:
    """Returns the operator that resizes one axis, or None if the length does not change."""
    if old_length == new_length:
        return None
    matrix = dense_axis_matrix(old_length, new_length, order)
    stripes = []
    num_rows = _ROWS_PER_BLOCK_OF_ORDER_1 if order == 1 else _ROWS_PER_BLOCK
    for start in range(0, new_length, num_rows):
        rows = slice(start, min(start + num_rows, new_length))
        used = np.flatnonzero((np.abs(matrix[rows]) > _NEGLIGIBLE).any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        block = np.ascontiguousarray(matrix[rows, columns])
        block.flags.writeable = False
        stripes.append((rows, columns, block))
    return AxisOperator(old_length, new_length, tuple(stripes))


def resize_volume(volume: np.ndarray, order: int, out: np.ndarray) -> None:
    """Resizes a 3-D image to the shape of `out` and writes it there.

    Args:
        volume: `(X, Y, Z)`, any real dtype.
        order: spline order along every axis, 1 to 5.
        out: 3-D array of the new shape; its dtype may be narrower than float64.
    """
    limits = _value_range(volume) if _needs_limits(order, volume.dtype, out.dtype) else None
    # Resize the axis that grows least first: the following products then run on the smallest intermediate.
    growth = [new / old for new, old in zip(out.shape, volume.shape, strict=True)]
    first = int(np.argmin(growth))
    volume, out = np.moveaxis(volume, first, 0), np.moveaxis(out, first, 0)
    depth = axis_operator(volume.shape[0], out.shape[0], order)
    in_plane = _plane_operators(volume.shape[1:], out.shape[1:], order)
    if depth is None:
        for group in _groups_of_planes(out):
            _write_within(limits, _resize_in_plane(_as_float64(volume[group]), *in_plane), out[group])
        return
    for rows, columns, block in depth.stripes:
        slab = _as_float64(volume[columns])
        planes = (block @ slab.reshape(slab.shape[0], -1)).reshape(-1, *volume.shape[1:])
        target = out[rows]
        for group in _groups_of_planes(target):
            _write_within(limits, _resize_in_plane(planes[group], *in_plane), target[group])


def resize_planes(planes: np.ndarray, order: int, out: np.ndarray) -> None:
    """Resizes each 2-D image of a stack separately, clipped to its own value range.

    Args:
        planes: `(N, Y, X)`.
        order: spline order, 1 to 5.
        out: `(N, new Y, new X)`, receives the result.
    """
    in_plane = _plane_operators(planes.shape[1:], out.shape[1:], order)
    for group in _groups_of_planes(out):
        resized = _resize_in_plane(_as_float64(planes[group]), *in_plane)
        if not _needs_limits(order, planes.dtype, out.dtype):
            _write_within(None, resized, out[group])
            continue
        for plane, values, target in zip(planes[group], resized, out[group], strict=True):
            _write_within(_value_range(plane), values, target)


def resize_depth(planes: np.ndarray, order: int, out: np.ndarray) -> None:
    """Resizes only the first axis of a stack of planes; the result may exceed the value range (order > 1)."""
    depth = axis_operator(planes.shape[0], out.shape[0], order)
    if depth is None:
        out[...] = planes
        return
    for rows, columns, block in depth.stripes:
        slab = _as_float64(planes[columns])
        out[rows] = (block @ slab.reshape(slab.shape[0], -1)).reshape(-1, *planes.shape[1:])


def _plane_operators(
    old_shape: Sequence[int], new_shape: Sequence[int], order: int
) -> tuple[AxisOperator | None, AxisOperator | None]:
    return axis_operator(old_shape[0], new_shape[0], order), axis_operator(old_shape[1], new_shape[1], order)


def _groups_of_planes(planes: np.ndarray) -> Iterator[slice]:
    """Slices of the first axis, each of about `_VALUES_PER_GROUP` values."""
    num_planes = max(1, _VALUES_PER_GROUP // max(1, planes[0].size))
    for first in range(0, len(planes), num_planes):
        yield slice(first, first + num_planes)


def _resize_in_plane(planes: np.ndarray, vertical: AxisOperator | None, horizontal: AxisOperator | None) -> np.ndarray:
    """Applies one operator to each of the last two axes, starting with the one that enlarges less."""
    steps = [(axis, operator) for axis, operator in ((0, vertical), (1, horizontal)) if operator is not None]
    steps.sort(key=lambda step: step[1].new_length / step[1].old_length)
    for axis, operator in steps:
        planes = operator.along_rows(planes) if axis == 0 else operator.along_columns(planes)
    return planes


def _as_float64(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float64)


def _value_range(array: np.ndarray) -> tuple[float, float]:
    lowest, highest = float(np.min(array)), float(np.max(array))
    if np.isnan(lowest):
        lowest, highest = float(np.nanmin(array)), float(np.nanmax(array))
    return lowest, highest


def _needs_limits(order: int, dtype: np.dtype, new_dtype: np.dtype) -> bool:
    """Whether an interpolation could leave the value range, even after rounding to its type."""
    is_rounded = new_dtype.kind == "f" and new_dtype == dtype and new_dtype.itemsize < 8
    return order > 1 or not is_rounded


def _write_within(limits: tuple[float, float] | None, values: np.ndarray, out: np.ndarray) -> None:
    if limits is not None:
        np.clip(values, *limits, out=values)
    if out.dtype == np.float16:
        _write_half(values, out)
    else:
        out[...] = values


def _write_half(values: np.ndarray, out: np.ndarray) -> None:
    """Writes float64 values as float16, with the processor's instructions; see `bits_beyond_float32_as_one`."""
    import torch

    rounded = bits_beyond_float32_as_one(torch.from_numpy(values).view(torch.int64)).view(torch.float64)
    torch.from_numpy(out).copy_(rounded.float())


def bits_beyond_float32_as_one(bits: torch.Tensor) -> torch.Tensor:
    """Prepares float64 values for rounding to float16 by way of float32.

    Rounding twice would be wrong beside a tie. So the bits that float32 lacks become one that says whether any of them
    was set ("round to odd"); then the first step is exact.

    Args:
        bits: float64 values, viewed as int64.
    """
    beyond_float32 = (1 << 29) - 1
    odd = bits & beyond_float32
    odd += beyond_float32  # carries into the last bit of float32 if any bit was set
    return odd.bitwise_or_(bits).bitwise_and_(~beyond_float32)
