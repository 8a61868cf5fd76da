"""The default resampling of logits with torch, slab by slab, so that a GPU needs no room for all resized logits.

The operators are those of `separable_matrices`, applied in the same order and in float64, where matrix products of
different libraries and devices differ in the last bits. Rounded to half precision the values are equal, except for
about one in 100 000 that lies between two neighbours and is rounded to the other one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nnunetv2.preprocessing.resampling.default_resampling import (
    Spacing,
    determine_do_sep_z_and_axis,
    nearest_planes,
    resample_data_or_seg_to_shape,
)
from nnunetv2.preprocessing.resampling.separable_matrices import (
    AxisOperator,
    axis_operator,
    bits_beyond_float32_as_one,
)

_ORDER = 1
# Per value of a slab: planes before and after a product, the product itself, and what rounding takes.
_BYTES_PER_VALUE = 40

Index = tuple[slice, ...]
Stripes = list[tuple[slice, slice, torch.Tensor]]


@dataclass(frozen=True)
class SlabResizing:
    """A linear resizing of channels (K, *old_shape) to (K, *new_shape)."""

    old_shape: tuple[int, ...]
    new_shape: tuple[int, ...]
    separate_axis: int | None
    """axis along which the nearest plane is taken; None resizes linearly along all"""

    @classmethod
    def of(
        cls,
        resampling: Callable,
        logits: torch.Tensor,
        new_shape: Sequence[int],
        current_spacing: Spacing,
        new_spacing: Spacing,
    ) -> SlabResizing | None:
        """The resizing that `resampling`, as a configuration has it, does to logits; None if it does something else."""
        if getattr(resampling, "func", None) is not resample_data_or_seg_to_shape or logits.dtype != torch.float16:
            return None
        call = inspect.signature(resampling).bind(logits, new_shape, current_spacing, new_spacing)
        call.apply_defaults()
        options = call.arguments
        if options["is_seg"] or options["order"] != _ORDER or options["order_z"] != 0 or logits.ndim != 4:
            return None
        _, axis = determine_do_sep_z_and_axis(
            options["force_separate_z"], current_spacing, new_spacing, options["separate_z_anisotropy_threshold"]
        )
        return cls(tuple(logits.shape[1:]), tuple(int(size) for size in new_shape), axis)

    def slabs(self, logits: torch.Tensor, device: torch.device, num_bytes: int) -> Iterator[tuple[Index, torch.Tensor]]:
        """Resize float16 logits (K, *old_shape) on a device.

        Args:
            logits: on `device`, or in main memory, from where the part for each slab is copied.
            num_bytes: memory to use for a slab; one plane is computed even if it takes more.

        Yields:
            The place of a slab in an array of `new_shape`, and the slab (K, *shape of the place), float16.
        """
        axis = self._leading_axis
        planes = logits.movedim(axis + 1, 1)
        plane_shape = [size for number, size in enumerate(self.new_shape) if number != axis]
        plane_size = max(np.prod(plane_shape), np.prod(planes.shape[2:]))
        num_planes = max(1, int(num_bytes // (_BYTES_PER_VALUE * len(logits) * plane_size)))
        vertical, horizontal = (
            _operator_on(device, old, new) for old, new in zip(planes.shape[2:], plane_shape, strict=True)
        )
        for rows, sources, block in self._steps(axis, device, logits.device, num_planes):
            slab = planes[:, sources].to(device)
            if self.old_shape != self.new_shape:
                slab = slab.double()
                if block is not None:
                    slab = torch.matmul(block, slab.flatten(2)).unflatten(2, slab.shape[2:])
                slab = _resize_in_plane(slab, vertical, horizontal)
                slab = bits_beyond_float32_as_one(slab.view(torch.int64)).view(torch.float64).float().half()
            yield (slice(None),) * axis + (rows,), slab.movedim(1, axis + 1)

    @property
    def _leading_axis(self) -> int:
        """The separate axis, or the one that grows least: what follows then works on the smallest arrays."""
        if self.separate_axis is not None:
            return self.separate_axis
        return int(np.argmin([new / old for old, new in zip(self.old_shape, self.new_shape, strict=True)]))

    def _steps(
        self, axis: int, device: torch.device, source_device: torch.device, num_planes: int
    ) -> Iterator[tuple[slice, slice | torch.Tensor, torch.Tensor | None]]:
        """New planes, the old ones that they are made of, and the matrix that does; None takes them as they are."""
        old, new = self.old_shape[axis], self.new_shape[axis]
        if self.separate_axis is None and old != new:
            for rows, columns, block in _operator_on(device, old, new).stripes:
                for part in _parts(rows, num_planes):
                    yield part, columns, block[part.start - rows.start : part.stop - rows.start]
            return
        nearest = None if old == new else torch.from_numpy(nearest_planes(old, new)).to(source_device)
        for part in _parts(slice(0, new), num_planes):
            yield part, (part if nearest is None else nearest[part]), None


@dataclass(frozen=True)
class _DeviceOperator:
    """An `AxisOperator` whose blocks are on a device."""

    enlargement: float
    new_length: int
    stripes: Stripes


def _operator_on(device: torch.device, old_length: int, new_length: int) -> _DeviceOperator | None:
    operator = axis_operator(old_length, new_length, _ORDER)
    if operator is None:
        return None
    matrix = torch.from_numpy(_dense(operator)).to(device)  # one copy instead of one per stripe
    stripes = [(rows, columns, matrix[rows, columns]) for rows, columns, _ in operator.stripes]
    return _DeviceOperator(new_length / old_length, new_length, stripes)


def _dense(operator: AxisOperator) -> np.ndarray:
    matrix = np.zeros((operator.new_length, operator.old_length))
    for rows, columns, block in operator.stripes:
        matrix[rows, columns] = block
    return matrix


def _resize_in_plane(
    slab: torch.Tensor, vertical: _DeviceOperator | None, horizontal: _DeviceOperator | None
) -> torch.Tensor:
    """Resizes the last two axes, starting with the one that enlarges less."""
    steps = [(along, operator) for along, operator in ((-2, vertical), (-1, horizontal)) if operator is not None]
    steps.sort(key=lambda step: step[1].enlargement)
    for axis, operator in steps:
        shape = list(slab.shape)
        shape[axis] = operator.new_length
        result = slab.new_empty(shape)
        for rows, columns, block in operator.stripes:
            if axis == -2:
                result[..., rows, :] = torch.matmul(block, slab[..., columns, :])
            else:
                result[..., rows] = torch.matmul(slab[..., columns], block.T)
        slab = result
    return slab


def _parts(rows: slice, length: int) -> Iterator[slice]:
    for first in range(rows.start, rows.stop, length):
        yield slice(first, min(first + length, rows.stop))
