"""Rebuild numpy scalars and arrays from a pickle without trusting its description of their memory.

numpy restores a dtype with flags taken from the file. Crafted flags make it interpret numbers as addresses of Python
objects. Here a dtype is created only from its name, such as `f4`, and its byte order.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

_PLAIN = frozenset("?bBhHiIlLqQefdgFDGSU")  # numbers and fixed-length text


class PickledDtype:
    """Replaces `numpy.dtype` while a pickle is read: same arguments and state, but restricted to plain dtypes."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        dtype = np.dtype(str(name))
        if dtype.char not in _PLAIN:
            raise pickle.UnpicklingError(f"numpy data of dtype {dtype}")
        self.dtype = dtype

    def __setstate__(self, state: tuple) -> None:
        if not (isinstance(state, tuple) and len(state) >= 5 and state[2:5] == (None, None, None)):
            raise pickle.UnpicklingError("a dtype with fields")
        self.dtype = self.dtype.newbyteorder(state[1])


def scalar(dtype: PickledDtype, data: bytes) -> np.generic:
    """Replaces `numpy._core.multiarray.scalar`."""
    return np.ndarray((), dtype=_plain(dtype), buffer=data)[()]


def from_buffer(data: bytes | bytearray, dtype: PickledDtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Replaces `numpy._core.numeric._frombuffer`, used for arrays in pickles of protocol 5."""
    return np.frombuffer(data, dtype=_plain(dtype)).reshape(shape, order=order)


def empty_array(kind: type, shape: tuple[int, ...], typecode: bytes) -> np.ndarray:
    """Replaces `numpy._core.multiarray._reconstruct`; `set_array_state` fills the array."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"an array of type {kind}")
    return np.empty(0, dtype=np.int8)


def set_array_state(array: np.ndarray, state: tuple) -> None:
    """Replaces `ndarray.__setstate__` for an array created by `empty_array`."""
    version, shape, dtype, is_fortran, data = state
    array.__setstate__((version, shape, _plain(dtype), is_fortran, data))


def _plain(dtype: Any) -> np.dtype:
    if not isinstance(dtype, PickledDtype):
        raise pickle.UnpicklingError("numpy data without a dtype")
    return dtype.dtype


def stand_ins() -> dict[tuple[str, str], Callable]:
    """Map the names in pickles of numpy 1 and 2 to the replacements above."""
    names: dict[tuple[str, str], Callable] = {("numpy", "dtype"): PickledDtype}
    for package in ("numpy.core", "numpy._core"):
        names[f"{package}.multiarray", "scalar"] = scalar
        names[f"{package}.multiarray", "_reconstruct"] = empty_array
        names[f"{package}.numeric", "_frombuffer"] = from_buffer
    return names
