"""Read .pkl files that hold plain data and numpy arrays; refuse those that would run code."""

from __future__ import annotations

import builtins
import collections
import os
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnunetv2.errors import DataError
from nnunetv2.utilities.atomic_files import replace_when_complete

_BUILTINS = (
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "range",
    "set",
    "slice",
)
_BUILTINS += ("str", "tuple")
_PLAIN_KINDS = frozenset("?bBhHiIlLqQefdgFDGmMUSc")  # dtypes without Python objects and without fields


def _plain_dtype(spec: Any, *flags: Any) -> np.dtype:
    """`numpy.dtype` for numbers and text. Others could hold objects, or memory that is taken for objects."""
    dtype = np.dtype(spec)
    if dtype.char not in _PLAIN_KINDS:
        raise pickle.UnpicklingError(f"an array of dtype {dtype}")
    return np.dtype(spec, *flags)


def _allowed_globals() -> dict[tuple[str, str], Any]:
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "dtype"): _plain_dtype,
        ("numpy", "ndarray"): np.ndarray,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): _latin1_bytes,
    }
    for package in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2 write different module names
        allowed[f"{package}.multiarray", "scalar"] = np.float32(0).__reduce__()[0]
        allowed[f"{package}.multiarray", "_reconstruct"] = np.zeros(1).__reduce__()[0]
        allowed[f"{package}.numeric", "_frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]
    for module in ("builtins", "__builtin__"):
        allowed.update({(module, name): getattr(builtins, name) for name in _BUILTINS})
    return allowed


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Bytes, the way pickle's protocol 2 writes them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding}")
    return text.encode("latin1")


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, file: Any, extra: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._allowed = {**_allowed_globals(), **extra}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None


def load_restricted(path: str | os.PathLike, extra: Mapping[tuple[str, str], Any] | None = None) -> Any:
    """Reads a pickle of Python's containers and scalars and of numpy arrays, scalars and dtypes.

    Args:
        extra: further names that the file may use, for example `{("package.module", "function"): function}`; the file
            gets the object given here.

    Raises:
        DataError: the file needs anything else (nothing of it was run), or is damaged or missing.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            return _RestrictedUnpickler(file, extra or {}).load()
    except FileNotFoundError as err:
        raise DataError(f"There is no file {path}") from err
    except pickle.UnpicklingError as err:
        raise DataError(
            f"{path} was not opened: it is damaged, or holds more than plain data and numpy arrays ({err}); "
            f"make the file again with nnU-Net, and do not trust one that others sent"
        ) from err
    except (EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, ImportError, MemoryError) as err:
        raise DataError(f"{path} is damaged ({type(err).__name__}: {err}); make it again") from err


def save_pickle(content: Any, path: str | os.PathLike) -> None:
    """Writes a pickle, atomically."""
    with replace_when_complete(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(content, file)
