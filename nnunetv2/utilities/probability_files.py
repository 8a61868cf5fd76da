"""Files for ensembling beside a segmentation: `CASE.npz` with scores, `CASE.pkl` with the image properties."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import DataError
from nnunetv2.utilities.restricted_pickle import save_pickle

ARRAY = "probabilities"
_MEMBER = f"{ARRAY}.npy"
_CHUNK = 1 << 20


def write_probabilities(scores: np.ndarray, properties: dict[str, Any], output_file_truncated: str) -> None:
    """Write the scores (K, Z, Y, X) under the name `probabilities`, and the image properties.

    Args:
        output_file_truncated: path of the segmentation without its ending.
    """
    with replace_when_complete(f"{output_file_truncated}.npz") as temporary:
        np.savez_compressed(temporary, **{ARRAY: scores})
    save_pickle(properties, f"{output_file_truncated}.pkl")


def remove_probabilities(output_file_truncated: str) -> None:
    """Delete the files of an older segmentation, which would otherwise be ensembled instead of the new one.

    Call this before writing the new segmentation: after an interruption, an old segmentation without scores is still
    consistent, a new one with old scores is not.
    """
    for ending in (".npz", ".pkl"):
        Path(f"{output_file_truncated}{ending}").unlink(missing_ok=True)


def check_probabilities(output_file_truncated: str, shape: tuple[int, ...]) -> None:
    """Check that the `.npz` of a segmentation is whole, without keeping its values.

    Args:
        shape: expected, (K, Z, Y, X).

    Raises:
        DataError: the file is missing or damaged, or of another shape.
    """
    path = f"{output_file_truncated}.npz"
    found = probability_shape(path)
    if found != shape:
        raise DataError(f"{path} has probabilities of shape {found} instead of {shape}")
    with errors_named(path), zipfile.ZipFile(path) as archive, archive.open(_MEMBER) as member:
        while member.read(_CHUNK):  # raises at the end if the checksum is wrong
            pass


def probability_shape(path: str | os.PathLike) -> tuple[int, ...]:
    """Read the shape of the probabilities (K, Z, Y, X) from the header, because `np.load` would decompress them.

    Raises:
        DataError: the file is damaged, or has no probabilities.
    """
    with errors_named(path), zipfile.ZipFile(path) as archive, archive.open(_MEMBER) as member:
        version = npy.read_magic(member)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(member)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which would need allow_pickle")
        return shape


@contextmanager
def errors_named(path: str | os.PathLike) -> Iterator[None]:
    """Convert the errors of reading an `.npz` file to a `DataError` that names it."""
    try:
        yield
    except KeyError as err:
        raise DataError(f"{os.fspath(path)} has no array named {ARRAY}; predict with --save_probabilities") from err
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as err:
        raise DataError(f"{os.fspath(path)} cannot be read ({err}); predict this case again") from err
