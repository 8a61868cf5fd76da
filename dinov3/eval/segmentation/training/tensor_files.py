"""Files of tensors and plain data: replaced as a whole, and opened without running what is in them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.errors import DataError


def write_tensors(content: dict[str, Any], path: str | os.PathLike) -> None:
    """Saves tensors and plain data, in dictionaries and lists; the file is the old or the new one at any time."""
    # Given a name, torch would store it in the file, and equal contents would differ in their bytes.
    with replace_when_complete(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def read_tensors(path: str | os.PathLike, *, lazily: bool = False) -> Any:
    """What `write_tensors` saved, with its tensors on the CPU.

    Args:
        lazily: Leave tensors on the disk until they are used.

    Raises:
        DataError: The file is damaged, or holds more than tensors and plain data.
    """
    try:
        return torch.load(Path(path), map_location="cpu", weights_only=True, mmap=lazily)
    except pickle.UnpicklingError as err:
        raise DataError(f"{path} cannot be read: it is damaged, or holds more than tensors and plain data") from err
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as err:
        raise DataError(f"{path} cannot be read: {(str(err).splitlines() or [type(err).__name__])[0]}") from err
