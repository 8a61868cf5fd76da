"""Combine the channel files of a case, and require that they lie on one grid."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from nnunetv2.errors import DataError, NNUNetError

logger = logging.getLogger(__name__)

ALLOW_MISMATCH = "nnUNet_allow_geometry_mismatch"

SPACING_TOLERANCE = 1e-5  # relative
ORIGIN_TOLERANCE = 1e-3  # mm
DIRECTION_TOLERANCE = 1e-4  # direction cosines, so approximately rad


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Convert any exception raised while reading `path` to a `DataError` that names the file."""
    if not os.path.isfile(path):
        raise DataError(f"There is no image file {os.fspath(path)}")
    try:
        yield
    except NNUNetError:
        raise
    except Exception as err:  # image libraries raise various errors on damaged files
        reason = ([line.strip() for line in str(err).splitlines() if line.strip()] or [type(err).__name__])[-1]
        raise DataError(f"{os.fspath(path)} cannot be read; it may be damaged or of another format ({reason})") from err


def stack_channels(images: Sequence[np.ndarray], paths: Sequence[str]) -> np.ndarray:
    """Concatenate arrays (c, Z, Y, X) along the first axis, as float32.

    Raises:
        DataError: their shapes differ.
    """
    for image, path in zip(images, paths, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"The channels of a case have different shapes: {list(images[0].shape)} in {paths[0]}, "
                f"{list(image.shape)} in {path}; resample them to one grid"
            )
    return np.concatenate(images, axis=0, dtype=np.float32, casting="unsafe")


def require_same_spacing(spacings: Sequence[Sequence[float]], paths: Sequence[str]) -> None:
    for spacing, path in zip(spacings, paths, strict=True):
        if np.array_equal(spacing, spacings[0]):  # much faster than the comparison below, and the usual case
            continue
        if len(spacing) != len(spacings[0]) or not np.allclose(spacing, spacings[0], rtol=SPACING_TOLERANCE):
            raise DataError(
                f"The channels of a case have different voxel spacings: {_short(spacings[0])} in {paths[0]}, "
                f"{_short(spacing)} in {path}; resample them to one grid"
            )


def require_positive_spacing(spacing: Sequence[float], path: str | os.PathLike) -> None:
    if not all(0 < length < math.inf for length in spacing):
        raise DataError(
            f"{os.fspath(path)} has the voxel spacing {_short(spacing)} mm; each must be above 0: write the true "
            f"spacing into the header"
        )


def require_same_geometry(
    values: Sequence[Sequence[float] | np.ndarray], paths: Sequence[str], what: str, tolerance: float
) -> None:
    """Raise `DataError` if the origin or direction of a channel differs from the first by more than `tolerance`.

    With the environment variable `nnUNet_allow_geometry_mismatch=1`, this is only a warning, as in upstream: the
    arrays are combined voxel by voxel.
    """
    for value, path in zip(values, paths, strict=True):
        if np.array_equal(value, values[0]) or np.allclose(value, values[0], rtol=0, atol=tolerance):
            continue
        message = (
            f"The channels of a case lie differently in space: {what} {_short(values[0])} in {paths[0]}, "
            f"{_short(value)} in {path}"
        )
        if os.environ.get(ALLOW_MISMATCH, "0") not in ("", "0"):
            logger.warning("%s; %s is set, so they are combined voxel by voxel", message, ALLOW_MISMATCH)
            return
        raise DataError(
            f"{message}; resample them to one grid, or, if only their headers are wrong, set {ALLOW_MISMATCH}=1"
        )


def _short(value: Sequence[float] | np.ndarray) -> list:
    return np.round(np.asarray(value, dtype=float), 5).tolist()


def as_smallest_label_type(seg: np.ndarray) -> np.ndarray:
    """Convert a label map to uint8, or to uint16 if a label is 255 or more."""
    return seg.astype(np.uint8 if seg.max(initial=0) < 255 else np.uint16, copy=False)
