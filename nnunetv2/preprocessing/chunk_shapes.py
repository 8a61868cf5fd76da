"""Chunk and block shapes of stored cases, chosen for reading patches.

A chunk is the unit of reading from disk, a block the unit of decompression. Both are matched to the training patch:
large enough that a patch touches few of them, small enough that little is read unnecessarily.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnunetv2.errors import UsageError

_MAX_BLOCK_BYTES = 128 << 10
_MAX_CHUNK_BYTES = 6 << 20

Shape4d = tuple[int, int, int, int]


def comp_blosc2_params(
    image_size: Sequence[int],
    patch_size: Sequence[int],
    bytes_per_pixel: int = 4,
    max_block_nbytes: int = _MAX_BLOCK_BYTES,
    max_chunk_nbytes: int = _MAX_CHUNK_BYTES,
    max_chunk_to_patch_ratio_per_axis: float | None = 1.5,
    grow_singleton_patch_axes: bool = False,
) -> tuple[Shape4d, Shape4d]:
    """Computes `(blocks, chunks)` for an array `(C, X, Y, Z)`; both have size 1 along the channels.

    Args:
        image_size: shape of the array.
        patch_size: `(X, Y, Z)`, or `(Y, Z)` for a network that sees single slices.
        bytes_per_pixel: size of one element.
        max_block_nbytes: limit of a block's content in bytes.
        max_chunk_nbytes: limit of a chunk's content in bytes.
        max_chunk_to_patch_ratio_per_axis: a chunk is at most this many patches long per axis; None sets no limit.
        grow_singleton_patch_axes: let chunks extend along an axis where the patch is one voxel thick.

    Raises:
        UsageError: a size is not positive, or a rank is not supported.
    """
    image, patch = _spatial_sizes(image_size, patch_size)
    ratio = max_chunk_to_patch_ratio_per_axis
    if min(bytes_per_pixel, max_block_nbytes, max_chunk_nbytes) <= 0 or (ratio is not None and ratio < 1):
        raise UsageError(
            f"Byte sizes must be positive and the ratio of chunk to patch at least 1 or None; got bytes_per_pixel="
            f"{bytes_per_pixel}, max_block_nbytes={max_block_nbytes}, max_chunk_nbytes={max_chunk_nbytes}, "
            f"max_chunk_to_patch_ratio_per_axis={ratio}"
        )
    longest = (
        image if ratio is None else [max(1, min(i, math.floor(ratio * p))) for i, p in zip(image, patch, strict=True)]
    )
    block = _shrink_to_fit(
        [min(_power_of_two_from(p), i) for p, i in zip(patch, image, strict=True)],
        longest,
        min(max_block_nbytes, max_chunk_nbytes) // bytes_per_pixel,
    )
    may_grow = [(p > 1 or grow_singleton_patch_axes) for p in patch]
    if len(patch_size) == 2:
        may_grow[0] = False
    chunk = _grow_by_blocks(block, image, longest, may_grow, max_chunk_nbytes // bytes_per_pixel)
    return (1, *block), (1, *chunk)


def _spatial_sizes(image_size: Sequence[int], patch_size: Sequence[int]) -> tuple[list[int], list[int]]:
    """Checks the sizes and returns the three spatial ones of image and patch; a 2-D patch is one slice thick."""
    if len(image_size) != 4 or len(patch_size) not in (2, 3) or min(*image_size, *patch_size) <= 0:
        raise UsageError(
            f"Stored cases are (channels, x, y, z) and patches (x, y, z) or (y, z), all positive; "
            f"got image size {tuple(image_size)} and patch size {tuple(patch_size)}"
        )
    patch = [int(size) for size in patch_size]
    return [int(size) for size in image_size[1:]], [1] * (3 - len(patch)) + patch


def _shrink_to_fit(block: list[int], longest: Sequence[int], max_voxels: int) -> list[int]:
    """Halves the axis that covers most of its `longest` extent until the block fits; ties go to the last axis."""
    block = list(block)
    while math.prod(block) > max_voxels:
        shrinkable = [axis for axis in range(3) if block[axis] > 1]
        if not shrinkable:
            raise UsageError("Not even one voxel fits into the given limits of block and chunk size")
        axis = max(shrinkable, key=lambda a: (block[a] / longest[a], a))
        block[axis] = _power_of_two_below(block[axis])
    return block


def _grow_by_blocks(
    block: Sequence[int],
    image: Sequence[int],
    longest: Sequence[int],
    may_grow: Sequence[bool],
    max_voxels: int,
) -> list[int]:
    """Adds blocks to a chunk, each time along the axis that covers the smallest part of its `longest` extent.

    Ties go to the axis that is longest in the image, then to the first.
    """
    chunk = list(block)
    while True:
        grown = {}
        for axis in range(3):
            size = min(chunk[axis] + block[axis], image[axis], longest[axis])
            voxels = math.prod(chunk) // chunk[axis] * size
            if may_grow[axis] and size > chunk[axis] and voxels <= max_voxels:
                grown[axis] = size
        if not grown:
            return chunk
        axis = min(grown, key=lambda a: (chunk[a] / longest[a], -image[a], a))
        chunk[axis] = grown[axis]


def _power_of_two_from(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


def _power_of_two_below(number: int) -> int:
    """The largest power of two that is smaller than `number` (2 or more)."""
    return 1 << ((number - 1).bit_length() - 1)
