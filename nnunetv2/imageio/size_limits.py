"""Rejects images whose header announces more voxels than memory could hold, before any are read.

A header of a few bytes can announce terabytes, and a few megabytes of zeros unpack to gigabytes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from nnunetv2.errors import DataError, UsageError

MAX_VOXELS = "nnUNet_max_voxels"

_MAX_VOXELS = 4_000_000_000
# gzip and zlib shrink zeros 1029 times, and a label map with one small organ about 920 times.
_MAX_RATIO = 1000
# Empty label maps are genuine files of such ratios. One of 512 x 512 x 2000 voxels (uint8) has 500 MiB.
UNSUSPICIOUS_VOLUME = 512 * 2**20  # bytes
UNSUSPICIOUS_SLICE = 128 * 2**20  # bytes


def require_readable_size(
    path: str | os.PathLike,
    shape: Sequence[int],
    *,
    unpacked: int,
    packed: int,
    unsuspicious: int = UNSUSPICIOUS_VOLUME,
) -> None:
    """Check the announced size of an image.

    The environment variable `nnUNet_max_voxels` replaces the limits: all images of up to that many voxels are read.

    Args:
        shape: of all values, including channels.
        unpacked: bytes of the voxels in memory, as the file stores them.
        packed: bytes in the file; the same as `unpacked` if it is not compressed.
        unsuspicious: bytes below which the compression ratio is not considered.

    Raises:
        DataError: the image is too large; the message names the file and the variable.
        UsageError: the variable is not a positive number.
    """
    num_voxels = math.prod(shape)
    given = _limit_of_user()
    if num_voxels > (given or _MAX_VOXELS):
        raise DataError(
            f"{os.fspath(path)} announces {num_voxels} voxels (shape {list(shape)}), which is more than the "
            f"{given or _MAX_VOXELS} that are read; if the header is right, set {MAX_VOXELS}={num_voxels}"
        )
    if given is None and unpacked > unsuspicious and unpacked > _MAX_RATIO * packed:
        raise DataError(
            f"{os.fspath(path)} would unpack {packed} bytes to {unpacked}, more than {_MAX_RATIO}:1, so it is empty or "
            f"made to fill the memory; if it is genuine, set {MAX_VOXELS}={num_voxels}"
        )


def _limit_of_user() -> int | None:
    text = os.environ.get(MAX_VOXELS, "").strip()
    if not text:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 1 <= limit < math.inf:
        raise UsageError(f"{MAX_VOXELS} is {text!r}; it must be a number of voxels, like 8e9")
    return int(limit)
