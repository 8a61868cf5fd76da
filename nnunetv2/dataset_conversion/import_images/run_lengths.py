"""Decode the run lengths of COCO masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnunetv2.errors import DataError, UsageError


def decode_run_lengths(segmentation: Mapping[str, Any], where: str) -> np.ndarray:
    """Decodes COCO's `{"counts": [...], "size": [height, width]}`; runs go down the columns and begin with zeros.

    Args:
        where: the annotation, for messages.

    Returns:
        bool (Y, X).

    Raises:
        DataError: the runs do not fill the size.
        UsageError: they are compressed, and pycocotools is not installed.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise DataError(f"{where}: the run lengths have the size {size!r}; it must be [height, width]")
    if isinstance(counts, str):
        return _decode_compressed(size, counts, where)
    if not isinstance(counts, list) or not all(isinstance(n, int) and n >= 0 for n in counts):
        raise DataError(f"{where}: the run lengths are no list of whole numbers")
    if sum(counts) != size[0] * size[1]:
        raise DataError(f"{where}: the run lengths cover {sum(counts)} pixels; {size[0]} x {size[1]} are needed")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(size[1], size[0]).T


def _decode_compressed(size: list[int], counts: str, where: str) -> np.ndarray:
    try:
        from pycocotools import mask
    except ImportError as err:
        raise UsageError(
            f"{where} has compressed run lengths, which pycocotools decodes; install it: pip install 'nnunetv2[coco]'"
        ) from err
    try:
        return mask.decode({"size": size, "counts": counts.encode("ascii")}).astype(bool)
    except Exception as err:  # the library raises various errors on damaged text
        raise DataError(f"{where}: the compressed run lengths cannot be decoded ({err})") from err
