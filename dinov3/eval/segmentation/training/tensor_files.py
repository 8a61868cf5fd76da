"""Files of tensors and plain data: written atomically, and read without executing code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.errors import DataError


def write_tensors(content: dict[str, Any], path: str | os.PathLike) -> None:
    """Saves tensors and plain data, in dictionaries and lists, atomically."""
    # Given a path, torch would store its name in the file, and equal contents would differ in bytes.
    with replace_when_complete(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def read_tensors(path: str | os.PathLike, *, lazily: bool = False) -> Any:
    """Reads a file by `write_tensors`, with tensors on the CPU.

    Args:
        lazily: Load tensors from disk on first use.

    Raises:
        DataError: The file is damaged, or contains more than tensors and plain data.
    """
    try:
        return torch.load(Path(path), map_location="cpu", weights_only=True, mmap=lazily)
    except pickle.UnpicklingError as err:
        raise DataError(f"{path} cannot be read: it is damaged, or holds more than tensors and plain data") from err
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as err:
        raise DataError(f"{path} cannot be read: {(str(err).splitlines() or [type(err).__name__])[0]}") from err
