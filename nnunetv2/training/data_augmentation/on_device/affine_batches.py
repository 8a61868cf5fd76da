"""Samples images and label maps at the voxels of rotated and scaled patches, for several samples together.

The results are those of `affine_sampling`, whose positions and scores are repeated here bit by bit, so that labels are
equal. On a device, voxels between labels cannot be picked out without waiting for it, so all voxels are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from nnunetv2.training.data_augmentation.affine_sampling import FULL_SCORE, interpolate_at, to_voxels

_VOXELS_AT_ONCE = 2**21  # of all label maps; each takes some hundred bytes while it is sampled


class AffinePatches(NamedTuple):
    """Patches of n samples, see `AffinePatch`.

    Attributes:
        matrices: (n, D, D), float32.
        shifts: (n, D), voxels, float32.
        shape: voxels per axis of each patch.
    """

    matrices: Tensor
    shifts: Tensor
    shape: tuple[int, ...]

    def slabs(self, num_maps: int) -> Iterator[slice]:
        """Yields parts of the first axis of which so many label maps can be sampled at once."""
        per_row = num_maps * len(self.matrices) * math.prod(self.shape[1:])
        rows = max(1, _VOXELS_AT_ONCE // per_row)
        for start in range(0, self.shape[0], rows):
            yield slice(start, min(start + rows, self.shape[0]))

    def positions(self, axis: int, size: int, rows: slice) -> Tensor:
        """Positions along one axis of the input, of that size, in torch's unit: (n, rows, *others), float32."""
        device, num_axes = self.matrices.device, len(self.shape)
        positions = None
        for number, length in enumerate(self.shape):
            first, stop = (rows.start, rows.stop) if number == 0 else (0, length)
            voxels = torch.arange(first, stop, dtype=torch.float32, device=device) - (length - 1) / 2
            along = voxels.view(-1, *[1] * (num_axes - 1 - number)) * self._of_samples(self.matrices[:, axis, number])
            positions = along if positions is None else positions + along
        positions += self._of_samples(self.shifts[:, axis])
        # By a tensor: division by a number is a multiplication on CUDA, which rounds differently.
        return positions.div_(torch.full((), size / 2, device=device))

    def _of_samples(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * len(self.shape))


def sample_images(images: Tensor, patches: AffinePatches, outside: float) -> Tensor:
    """Interpolates images (n, C, *spatial) linearly at the voxels of their patches; see `sample_image`."""
    sizes = images.shape[2:]
    grid = torch.empty((len(images), *patches.shape, len(sizes)), device=images.device)
    for axis, size in enumerate(sizes):
        grid[..., len(sizes) - 1 - axis] = patches.positions(axis, size, slice(0, patches.shape[0]))
    return interpolate_at(grid, images, outside)


def sample_labels(labels: Tensor, patches: AffinePatches, outside: int, *, by_nearest: bool) -> Tensor:
    """Gives each voxel of the patches the label with the largest share; see `affine_sampling.sample_labels`.

    Args:
        labels: (n, L, *spatial), a signed integer type.
        patches: where to sample.
        outside: label of voxels outside.
        by_nearest: the label of the nearest voxel instead.

    Returns:
        (n, L, *patches.shape), of the same type.
    """
    padded = pad(labels, (1, 1) * len(patches.shape), value=outside)
    strides = padded.stride()[2:]
    steps = [sum(step) for step in product(*((0, stride) for stride in strides))]
    flat = padded.flatten(2)
    result = labels.new_empty((*labels.shape[:2], *patches.shape))
    for rows in patches.slabs(labels.shape[1]):
        first, weights, nearest_step = _cells(labels.shape[2:], strides, patches, rows)
        chosen = _taken(flat, first + nearest_step)
        if not by_nearest:
            scores = [score.unsqueeze(1) for score in _scores(weights)]  # the same for all label maps
            chosen = _largest_share([_taken(flat, first + step) for step in steps], scores, chosen)
        result[:, :, rows] = chosen
    return result


def _cells(
    sizes: Sequence[int], strides: Sequence[int], patches: AffinePatches, rows: slice
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Finds the cell of the padded input in which each voxel lies, all (n, rows, *others).

    Returns:
        Index of its first voxel, position within it per axis (0 to 1), and the step to its nearest voxel.
    """
    first = nearest_step = 0
    weights = []
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        position = to_voxels(patches.positions(axis, size, rows), size)
        lower = position.floor().clamp_(-1, size - 1)
        weight = (position - lower).clamp_(0, 1)
        is_odd = lower.remainder(2) == 1
        is_last = (weight > 0.5) | ((weight == 0.5) & is_odd)  # in the middle of two, that with the even position
        first = first + (lower + 1).long() * stride
        nearest_step = nearest_step + is_last * stride
        weights.append(weight)
    return first, weights, nearest_step


def _scores(weights: Sequence[Tensor]) -> list[Tensor | float]:
    """Scores of the voxels of a cell, the last axis changing fastest."""
    scores = [FULL_SCORE]
    for weight in reversed(weights):
        scores = [end * score for end in (1 - weight, weight) for score in scores]
    return scores


def _taken(flat: Tensor, indices: Tensor) -> Tensor:
    """Voxels (n, L, rows, *others) of flat label maps (n, L, voxels), at the same indices for all maps of a sample."""
    num_samples, num_maps = flat.shape[:2]
    taken = flat.gather(2, indices.flatten(1)[:, None].expand(-1, num_maps, -1))
    return taken.view(num_samples, num_maps, *indices.shape[1:])


def _largest_share(labels: Sequence[Tensor], scores: Sequence[Tensor], nearest: Tensor) -> Tensor:
    """The label with the largest share of each cell.

    Args:
        labels: of the voxels of a cell.
        scores: of these voxels, in the same order; sums are taken in this order.
        nearest: label of the nearest voxel, which wins ties; then the smallest does.
    """
    numbers = range(len(labels))
    same = {(i, j): labels[i] == labels[j] for i, j in combinations(numbers, 2)}
    shares = []
    for i in numbers:
        share = torch.zeros(nearest.shape, device=nearest.device)
        for j in numbers:
            share += scores[j] if i == j else scores[j] * same[min(i, j), max(i, j)]
        shares.append(share.half())  # as coarse as upstream's
    largest = shares[0]
    for share in shares[1:]:
        largest = torch.maximum(largest, share)
    winner = torch.full_like(nearest, torch.iinfo(nearest.dtype).max)
    nearest_wins = torch.zeros_like(nearest, dtype=torch.bool)
    for label, share in zip(labels, shares, strict=True):
        is_largest = share == largest
        winner = torch.where(is_largest, torch.minimum(winner, label), winner)
        nearest_wins |= is_largest & (label == nearest)
    return torch.where(nearest_wins, nearest, winner)
