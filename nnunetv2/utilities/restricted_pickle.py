"""Read .pkl files with plain data and numpy arrays; reject those that would execute code."""

from __future__ import annotations

import builtins
import collections
import os
import pickle
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import DataError
from nnunetv2.utilities.numpy_in_pickles import PickledDtype, set_array_state, stand_ins

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
    "set",
    "str",
    "tuple",
)


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Replaces `_codecs.encode`, which pickle protocols below 3 use for bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding}")
    return text.encode("latin1")


def _allowed_names() -> dict[tuple[str, str], Any]:
    allowed = {
        **stand_ins(),
        ("numpy", "ndarray"): np.ndarray,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): _latin1_bytes,
    }
    for module in ("builtins", "__builtin__"):
        allowed.update({(module, name): getattr(builtins, name) for name in _BUILTINS})
    return allowed


class _RestrictedUnpickler(pickle._Unpickler):
    """Based on the pure-Python unpickler, since the C one cannot control how objects restore their state."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, extra: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._allowed = {**_allowed_names(), **extra}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}") from None

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, np.ndarray):
            set_array_state(target, state)
        elif isinstance(target, PickledDtype):
            target.__setstate__(state)
        else:
            raise pickle.UnpicklingError(f"the state of a {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = load_build


def load_restricted(path: str | os.PathLike, extra: Mapping[tuple[str, str], Any] | None = None) -> Any:
    """Read a pickle of Python containers and scalars and of numpy arrays and scalars.

    Args:
        extra: additional names that the file may use, for example `{("package.module", "function"): function}`; the
            file receives the object given here.

    Raises:
        DataError: the file needs anything else (no code from it is executed), or is damaged or missing.
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
    except Exception as err:  # on damaged bytes, the unpickler can raise anything
        raise DataError(f"{path} is damaged ({type(err).__name__}: {err}); make it again") from err


def save_pickle(content: Any, path: str | os.PathLike) -> None:
    """Write a pickle atomically."""
    with replace_when_complete(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(content, file)
