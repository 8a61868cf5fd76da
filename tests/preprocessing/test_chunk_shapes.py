"""Chunk and block shapes (compared with upstream's over many sizes in test_upstream_equality)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunetv2.errors import UsageError
from nnunetv2.preprocessing.chunk_shapes import comp_blosc2_params


@pytest.mark.parametrize("seed", range(30))
def test_shapes_respect_their_limits(seed):
    random = np.random.default_rng(seed)
    image = (int(random.integers(1, 4)), *(int(n) for n in random.integers(1, 700, 3)))
    patch = tuple(int(n) for n in random.integers(1, 300, 2 + seed % 2))
    size = int(random.choice([1, 2, 4]))
    blocks, chunks = comp_blosc2_params(image, patch, size)
    assert math.prod(blocks) * size <= 128 * 1024
    assert math.prod(chunks) * size <= 6 * 1024**2
    assert blocks[0] == chunks[0] == 1
    assert all(b <= c <= i for b, c, i in zip(blocks[1:], chunks[1:], image[1:], strict=True))


def test_a_known_case():
    assert comp_blosc2_params((1, 64, 156, 162), (80, 160, 160), 4) == ((1, 16, 32, 64), (1, 64, 128, 162))


@pytest.mark.parametrize(
    ("image", "patch", "options", "message"),
    [
        ((64, 64, 64), (8, 8, 8), {}, r"got image size \(64, 64, 64\)"),
        ((1, 64, 64, 64), (8,), {}, r"patch size \(8,\)"),
        ((1, 64, 0, 64), (8, 8, 8), {}, "all positive"),
        ((1, 64, 64, 64), (8, 8, 8), {"max_chunk_to_patch_ratio_per_axis": 0.5}, "at least 1"),
        ((1, 64, 64, 64), (8, 8, 8), {"max_block_nbytes": 0}, "max_block_nbytes=0"),
        ((1, 64, 64, 64), (8, 8, 8), {"max_block_nbytes": 2}, "Not even one voxel"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(image, patch, options, message):
    with pytest.raises(UsageError, match=message):
        comp_blosc2_params(image, patch, **options)
