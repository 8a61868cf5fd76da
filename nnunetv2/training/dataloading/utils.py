"""Upstream's import path; the code is in `nnunetv2.preprocessing.npz_unpacking`."""

from nnunetv2.preprocessing.npz_unpacking import unpack_dataset

__all__ = ["unpack_dataset"]
