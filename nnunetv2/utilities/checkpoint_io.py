"""Read and write checkpoints: reading executes no code from the file and checks its digest, writing is atomic."""

from __future__ import annotations

import os
import pickle
from typing import Any

import torch

from dinov3.utils.tensor_files import require_intact, write_tensors
from nnunetv2.errors import DataError
from nnunetv2.utilities.numpy_in_pickles import PickledDtype, scalar, stand_ins


def _numpy_numbers() -> list[tuple[Any, str]]:
    """Types that upstream's checkpoints need besides tensors and plain data: the logged losses are numpy scalars."""
    names = stand_ins().items()
    return [(stand_in, f"{module}.{name}") for (module, name), stand_in in names if stand_in in (PickledDtype, scalar)]


def load_checkpoint(
    path: str | os.PathLike, map_location: str | torch.device = "cpu", *, mmap: bool = False
) -> dict[str, Any]:
    """Read a checkpoint of this project or of upstream nnU-Net.

    Supports tensors, plain Python data and numpy scalars; nothing in the file is executed.

    Args:
        mmap: load tensors lazily and do not check the digest, to read other entries; only for zip files, on the CPU.

    Raises:
        DataError: the file is missing or damaged, has unsupported content, or is not a checkpoint.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise DataError(f"There is no checkpoint {path}")
    try:
        if not mmap:
            require_intact(path)
        with torch.serialization.safe_globals(_numpy_numbers()):
            content = torch.load(path, map_location=map_location, mmap=mmap, weights_only=True)
    except DataError:
        raise
    except pickle.UnpicklingError as err:
        raise DataError(_refusal(path)) from err
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as err:
        raise DataError(
            f"The checkpoint {path} is damaged or incomplete ({_first_line(err)}); use a copy, or another checkpoint"
        ) from err
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a checkpoint: it holds a {type(content).__name__} where a dict is expected")
    return content


def _refusal(path: str) -> str:
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            asked_for = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError):
        asked_for = []
    if not asked_for:
        return f"The checkpoint {path} is damaged, or not a file that torch.save wrote"
    return (
        f"The checkpoint {path} was not opened: it asks for {', '.join(asked_for)}, and a checkpoint may only hold "
        f"tensors, plain data and numpy numbers; if you trust its author, have it saved again without that"
    )


def _first_line(err: BaseException) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0]


def save_checkpoint(
    content: dict[str, Any],
    path: str | os.PathLike,
    *,
    previous: str | os.PathLike | None = None,
    keeps_previous: bool = False,
) -> None:
    """Writes a checkpoint with a digest: at any time `path` holds the complete old or the complete new file.

    Arguments and errors are those of `dinov3.utils.tensor_files.write_tensors`.
    """
    write_tensors(content, path, previous=previous, keeps_previous=keeps_previous)
