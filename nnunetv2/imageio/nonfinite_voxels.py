"""Count the NaN and infinite voxels of an image.

SimpleITK silently replaces such voxels of NIfTI files with 0, so its arrays do not reveal them.
"""

from __future__ import annotations

import os

import numpy as np

from nnunetv2.imageio.channel_grid import naming
from nnunetv2.imageio.nifti_integrity import is_nifti


def count_nonfinite_voxels(path: str | os.PathLike, data: np.ndarray | None = None) -> int:
    """Count the NaN and infinite voxels of one file.

    Args:
        data: array that a reader returned for this file; ignored for NIfTI, whose file is read again.

    Raises:
        DataError: the NIfTI file cannot be read.
    """
    if not is_nifti(path):
        return 0 if data is None else _count(data)
    import nibabel

    with naming(path):
        proxy = nibabel.load(path).dataobj
        stored_as_integers = np.issubdtype(proxy.dtype, np.integer)
        if stored_as_integers and np.isfinite([proxy.slope, proxy.inter]).all():
            return 0
        return _count(np.asanyarray(proxy))


def _count(array: np.ndarray) -> int:
    return int(array.size - np.count_nonzero(np.isfinite(array)))
