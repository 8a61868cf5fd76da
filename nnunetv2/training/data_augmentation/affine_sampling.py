"""Samples images and label maps at the voxels of a rotated and scaled patch.

Replaces `grid_sample` where positions are an affine map of the patch: no grid of positions is built for a volume, only
the part of it that the patch covers is read, and a label map is interpolated once instead of once per label.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch.nn.functional import grid_sample, pad

_VOXELS_AT_ONCE = 2**17  # intermediate arrays of this size stay in the processor's cache
_ROUNDING = 1e-3  # voxels; positions in float32 are more exact than this
FULL_SCORE = 1000.0  # a label whose neighbours all agree; float16 is as coarse as 0.25 near its half, as in upstream
_SAFE_MAJORITY = 501.0  # a label with this score wins, whatever rounding does to the others


_Array = TypeVar("_Array", np.ndarray, torch.Tensor)


class AffinePatch(NamedTuple):
    """A patch whose voxel p lies at `matrix @ p + shift` in the input, both counted from their middles."""

    matrix: np.ndarray
    """(D, D), D being 2 or 3"""
    shift: Sequence[float]
    """voxels per axis"""
    shape: tuple[int, ...]
    """voxels per axis of the patch"""

    def bounds(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """First and last voxel between which the patch interpolates, per axis of an input; may lie outside."""
        reach = np.abs(self.matrix) @ ((np.array(self.shape) - 1) / 2) + _ROUNDING
        middles = [(size - 1) / 2 + shift for size, shift in zip(sizes, self.shift, strict=True)]
        return [(math.floor(m - r), math.floor(m + r) + 1) for m, r in zip(middles, reach, strict=True)]

    def covered(self, sizes: Sequence[int]) -> tuple[slice, ...]:
        """The part of an input that the patch reads, at least one voxel per axis."""
        ends = zip(self.bounds(sizes), sizes, strict=True)
        return tuple(
            slice(max(min(first, size - 1), 0), max(min(last, size - 1), 0) + 1) for (first, last), size in ends
        )

    def offsets(self, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions along one axis of the input, counted from its middle and without the shift, as two terms.

        Returns:
            One term per row (shape[:-1]) and one per voxel within a row; float32. They are rounded as a product of
            matrices is, so that positions equal those of batchgeneratorsv2 in every bit.
        """
        first, *others = (
            (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) * factor
            for factor, size in zip(np.float32(self.matrix[axis]), self.shape, strict=True)
        )
        rows = first
        for along in others[:-1]:
            rows = rows[..., None] + along
        return rows, others[-1]


def sample_image(image: torch.Tensor, patch: AffinePatch, outside: float = 0.0) -> torch.Tensor:
    """Interpolates an image linearly at the voxels of a patch.

    Equals batchgeneratorsv2 with `grid_sample(mode="bilinear", align_corners=False)`; in 3-D except for the order in
    which eight weighted voxels are added.

    Args:
        image: (C, *spatial), float32.
        patch: where to sample.
        outside: value of voxels outside the image; up to one voxel from its border, they are interpolated with it.

    Returns:
        (C, *patch.shape), float32.
    """
    # In 3-D on the CPU, torch's kernel takes one voxel after the other, and needs the whole grid of positions.
    if image.ndim == 3 or image.device.type != "cpu":
        return _sample_by_grid(image, patch, outside)
    part, starts = _covered_part(image, patch, outside)
    result = torch.empty((len(part), math.prod(patch.shape)))
    flat, size = part.flatten(), part[0].numel()
    for voxels, cells in _cells(part.shape, starts, image.shape[1:], patch):
        first, weights = torch.from_numpy(cells.first), list(map(torch.from_numpy, cells.weights))
        for channel in result:
            values = [flat[step:].index_select(0, first) for step in cells.steps()]
            for weight in reversed(weights):
                values = [torch.lerp(*pair, weight) for pair in zip(values[::2], values[1::2], strict=True)]
            channel[voxels] = values[0]
            first.add_(size)
    return result.reshape(-1, *patch.shape)


def _sample_by_grid(image: torch.Tensor, patch: AffinePatch, outside: float) -> torch.Tensor:
    sizes = image.shape[1:]
    grid = torch.empty((*patch.shape, len(sizes)), device=image.device)
    for axis, size in enumerate(sizes):
        rows, within = (torch.from_numpy(term).to(image.device) for term in patch.offsets(axis))
        grid[..., len(sizes) - 1 - axis] = _relative(rows[..., None] + within, patch.shift[axis], size)
    return interpolate_at(grid[None], image[None], outside)[0]


def interpolate_at(grid: torch.Tensor, images: torch.Tensor, outside: float) -> torch.Tensor:
    """Interpolates images (B, C, *spatial) linearly at (B, *patch, D) positions in torch's unit and order of axes."""
    shifted = images - outside if outside else images  # grid_sample pads with 0
    sampled = grid_sample(shifted, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.add_(outside) if outside else sampled


def _relative(offsets: _Array, shift: float, size: int) -> _Array:
    """Converts voxels from the middle to torch's unit, -1 and 1 at the outer edges; in place."""
    if shift:
        offsets += shift
    offsets /= size / 2
    return offsets


def to_voxels(positions: _Array, size: int) -> _Array:
    """Converts torch's unit to voxels from the first one's middle; in place."""
    positions += 1
    positions *= size
    positions -= 1
    positions /= 2
    return positions


def sample_labels(labels: torch.Tensor, patch: AffinePatch, outside: int) -> torch.Tensor:
    """Gives each voxel of a patch the label with the largest share among the neighbours, weighted as in interpolation.

    Equals batchgeneratorsv2's interpolation of one channel per label and its choice in ties: shares are compared in
    steps of 0.25 to 0.5 of 1000, and among equal ones, the nearest neighbour's label wins, then the smallest. Only
    voxels between different labels, usually few, need any of this.

    Args:
        labels: (C, *spatial), a signed integer type, on the CPU; its smallest value is reserved.
        patch: where to sample.
        outside: label of voxels outside.

    Returns:
        (C, *patch.shape), of the same type.
    """
    part, starts = _covered_part(labels, patch, outside)
    flat, size = part.numpy().ravel(), part[0].numel()
    undecided = torch.iinfo(labels.dtype).min
    decided = _decided_cells(part, undecided)
    result = np.empty((len(part), math.prod(patch.shape)), dtype=flat.dtype)
    for voxels, cells in _cells(part.shape, starts, labels.shape[1:], patch):
        for channel in result:
            # All indices are valid; without a mode, numpy fills a buffer first.
            found = np.take(decided, cells.first, mode="wrap", out=channel[voxels])
            between = np.flatnonzero(found == undecided)
            if len(between):
                found[between] = _largest_share(flat, cells.select(between))
            np.add(cells.first, size, out=cells.first)
    return torch.from_numpy(result).reshape(-1, *patch.shape)


def sample_nearest_labels(labels: torch.Tensor, patch: AffinePatch, outside: int) -> torch.Tensor:
    """Gives each voxel of a patch the label of the nearest voxel; same arguments as `sample_labels`."""
    part, starts = _covered_part(labels, patch, outside)
    flat, size = part.numpy().ravel(), part[0].numel()
    result = np.empty((len(part), math.prod(patch.shape)), dtype=flat.dtype)
    for voxels, cells in _cells(part.shape, starts, labels.shape[1:], patch):
        nearest = cells.nearest()
        for channel in result:
            np.take(flat, nearest, mode="wrap", out=channel[voxels])
            nearest += size
    return torch.from_numpy(result).reshape(-1, *patch.shape)


class _Cells(NamedTuple):
    """For n voxels of a patch, the cell of 2**D voxels of the input in which each lies."""

    first: np.ndarray
    """(n,), index of the cell's first voxel in the flattened input"""
    weights: list[np.ndarray]
    """(n,) per axis, position between the cell's first voxel (0) and its last (1)"""
    axes: list[tuple[int, int, int]]
    """per axis of the input: first voxel, size, and stride in the flattened input"""

    def select(self, chosen: np.ndarray) -> _Cells:
        return _Cells(self.first[chosen], [weight[chosen] for weight in self.weights], self.axes)

    def steps(self) -> list[int]:
        """From a cell's first voxel to all of its voxels, the last axis changing fastest."""
        return [sum(step) for step in product(*((0, stride) for _, _, stride in self.axes))]

    def nearest(self) -> np.ndarray:
        """Index of the voxel of the cell that is nearest; in the middle of two, that with the even position."""
        nearest = self.first.copy()
        for weight, (start, size, stride) in zip(self.weights, self.axes, strict=True):
            is_last = weight > 0.5
            in_the_middle = weight == 0.5
            if in_the_middle.any():
                position = self.first // stride % size + start
                is_last |= in_the_middle & (position % 2 == 1)
            nearest += is_last * nearest.dtype.type(stride)
        return nearest


def _cells(
    shape: Sequence[int], starts: Sequence[int], whole: Sequence[int], patch: AffinePatch
) -> Iterator[tuple[slice, _Cells]]:
    """Yields the voxels of a patch, in parts that are slices of the flattened patch, with their cells.

    Args:
        shape: (C, *spatial) of the part of the input that `_covered_part` returned.
        starts: where it starts.
        whole: spatial shape of the input.
        patch: where to sample.
    """
    axes = [(start, shape[axis + 1], math.prod(shape[axis + 2 :])) for axis, start in enumerate(starts)]
    terms = [patch.offsets(axis) for axis in range(len(whole))]
    index_type = np.int32 if math.prod(shape) < 2**31 else np.int64
    length = patch.shape[-1]
    num_rows, rows_at_once = math.prod(patch.shape[:-1]), max(1, _VOXELS_AT_ONCE // length)
    for row in range(0, num_rows, rows_at_once):
        first, weights = None, []
        for axis, ((rows, within), (start, size, stride)) in enumerate(zip(terms, axes, strict=True)):
            position = (rows.ravel()[row : row + rows_at_once, None] + within).ravel()
            # Back and forth through torch's unit, because that is where batchgeneratorsv2's positions are rounded.
            position = to_voxels(_relative(position, patch.shift[axis], whole[axis]), whole[axis])
            lower = np.floor(position)
            # Beyond the margin, the outermost cell stands for all.
            _clamp(lower, start, start + size - 2)
            position -= lower
            _clamp(position, 0, 1)
            weights.append(position)
            lower -= start
            lower = lower.astype(index_type)
            lower *= stride
            first = lower if first is None else np.add(first, lower, out=first)
        yield slice(row * length, row * length + len(first)), _Cells(first, weights, axes)


def _clamp(values: np.ndarray, lowest: float, highest: float) -> None:
    torch.from_numpy(values).clamp_(lowest, highest)  # takes a third of numpy's time


def _covered_part(array: torch.Tensor, patch: AffinePatch, outside: float) -> tuple[torch.Tensor, list[int]]:
    """Cuts out what a patch covers, with a margin of one voxel where it extends beyond the array.

    Returns:
        The part, contiguous, at least two voxels long per axis; and the position of its first voxel.
    """
    margins, starts = [], []
    for (first, last), size in zip(patch.bounds(array.shape[1:]), array.shape[1:], strict=True):
        first, last = min(max(first, -1), size - 1), max(min(last, size), 0)
        margins.append((int(first < 0), int(last == size)))
        starts.append(first)
    part = array[(slice(None), *patch.covered(array.shape[1:]))]
    if np.any(margins):
        return pad(part, [number for pair in reversed(margins) for number in pair], value=outside), starts
    return part.contiguous(), starts


def _decided_cells(part: torch.Tensor, undecided: int) -> np.ndarray:
    """Replaces the first voxel of each cell by `undecided` if the cell holds more than one value.

    Args:
        part: (C, *spatial), contiguous, of a signed integer type.
        undecided: a value that does not occur.

    Returns:
        Flattened, and shorter by a cell. Entries at an axis' last voxel, where no cell starts, have no meaning.
    """
    flat, strides = part.numpy().ravel(), part.stride()[1:]
    cell = sum(strides)
    decided = flat[:-cell].copy()
    for start in range(0, len(decided), _VOXELS_AT_ONCE):
        values = flat[start : start + _VOXELS_AT_ONCE + cell]
        differs = values[1:] != values[:-1]
        for stride in reversed(strides[:-1]):
            num = len(differs) - stride
            along = values[:num] != values[stride : stride + num]
            along |= differs[:num]
            differs = np.logical_or(along, differs[stride:], out=along)
        np.putmask(decided[start : start + len(differs)], differs, undecided)
    return decided


def _largest_share(flat: np.ndarray, cells: _Cells) -> np.ndarray:
    """The label with the largest share of each cell, see `sample_labels`."""
    labels = np.stack([flat[step:].take(cells.first) for step in cells.steps()])
    scores = np.full((1, 1), FULL_SCORE, dtype=np.float32)
    for weight in reversed(cells.weights):
        scores = (np.stack((1 - weight, weight))[:, None] * scores).reshape(-1, len(weight))
    nearest = flat.take(cells.nearest())
    score = ((labels == nearest) * scores).sum(0)
    open_ones = np.flatnonzero(score < _SAFE_MAJORITY)
    if len(open_ones):
        labels, scores = labels[:, open_ones], scores[:, open_ones]
        shares = np.stack([((labels == label) * scores).sum(0) for label in labels]).astype(np.float16)
        largest = shares == shares.max(0)
        of_nearest = nearest[open_ones]
        smallest = np.where(largest, labels, np.iinfo(labels.dtype).max).min(0)
        nearest[open_ones] = np.where((largest & (labels == of_nearest)).any(0), of_nearest, smallest)
    return nearest
