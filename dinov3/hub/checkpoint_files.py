"""Reads tensors from third-party files without executing code; detects the format from the content."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dinov3.utils.errors import DataError, UsageError
from dinov3.utils.tensor_files import require_intact

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_SINGLE_FILE = "model.safetensors"
_SINGLE_PICKLE = "pytorch_model.bin"
_SHARD_INDEX = "model.safetensors.index.json"
_NETWORKS = ("teacher", "model_ema", "ema", "model", "state_dict", "student")
"""Entries that may hold a network, by priority: teacher or average come first, because authors evaluate these."""
_SHOWN_ENTRIES = 5


class _Ignored:
    """Placeholder for settings saved with the weights; discards them."""

    def __setstate__(self, state: object) -> None:
        """Discards the state in the file."""


class StoredNetwork(NamedTuple):
    """The state dict of a network, and its location in the file."""

    tensors: dict[str, Tensor]
    """On the CPU. Tensors of a large file may be loaded from disk on first use."""
    entry: str
    """For example `teacher` or `model.teacher`; empty if the file holds only the network."""


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Returns the tensors of `read_network`; see there for supported files and errors."""
    return read_network(path).tensors


def read_network(path: str | os.PathLike) -> StoredNetwork:
    """Reads the names and tensors of one network.

    Args:
        path: file written by `torch.save` (either format) or safetensors, with any suffix; or a folder with
            `model.safetensors`, single or sharded, or `pytorch_model.bin`. The network may be in an entry of a dict
            (`teacher`, `model_ema`, `ema`, `model`, `state_dict`, `student`).

    Raises:
        UsageError: the file or folder does not exist.
        DataError: the file is damaged, would execute code, or contains no state dict.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UsageError(f"The weights {path} do not exist; give the path of a file that does, or a URL")
    with open(path, "rb") as file:
        start = file.read(64)
    if start[8:9] == b"{":  # safetensors: the length of the header in 8 bytes, then the header
        return _network_in(_read_safetensors(path), path)
    if start[:4] == _ZIP or start[:1] == _PICKLE:
        require_intact(path)
        return _network_in(_read_torch(path, in_zip=start[:4] == _ZIP), path)
    if path.suffix == ".json" and start[:1] == b"{":
        return StoredNetwork(_read_shards(path), "")
    raise _unreadable(path, _what_starts_with(start))


def _read_torch(path: Path, *, in_zip: bool) -> Any:
    try:
        with torch.serialization.safe_globals([(_Ignored, "argparse.Namespace")]):
            if in_zip and path.suffix != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with open(path, "rb") as file:  # given a path, torch would infer the format from its name
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        asked_for = re.search(r"GLOBAL (\S+)", str(err))
        if asked_for is None:
            raise _unreadable(path, "it is damaged, or not a file that torch.save wrote") from err
        raise _unreadable(
            path,
            f"it asks for {asked_for[1]}, and only tensors and plain data are opened, because code in a file could do "
            f"anything; if you trust its author, have the state dict saved alone",
        ) from err
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as err:
        raise _unreadable(path, f"it is damaged or incomplete ({_first_line(err)})") from err


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as err:
        raise _unreadable(path, f"it is damaged or incomplete ({_first_line(err)})") from err


def _read_folder(folder: Path) -> StoredNetwork:
    if (folder / _SINGLE_FILE).is_file():
        return read_network(folder / _SINGLE_FILE)
    if (folder / _SHARD_INDEX).is_file():
        return StoredNetwork(_read_shards(folder / _SHARD_INDEX), "")
    if (folder / _SINGLE_PICKLE).is_file():
        return read_network(folder / _SINGLE_PICKLE)
    if (folder / ".metadata").is_file():
        raise UsageError(
            f"{folder} is a checkpoint of torch.distributed; make one file of it with "
            f"`python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} FILE.pth` and give that"
        )
    raise UsageError(
        f"The folder {folder} holds neither {_SINGLE_FILE} nor {_SHARD_INDEX} nor {_SINGLE_PICKLE}; give the file of "
        f"weights"
    )


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(places.values()))
        is_plain = all(Path(name).name == name and name.endswith(".safetensors") for name in files)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise _unreadable(index, "it is not the index of a model in several files") from err
    if not is_plain:
        raise _unreadable(index, f"it names other files than *.safetensors beside it ({', '.join(files)})")
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors |= read_state_dict(index.parent / name)
    if missing := sorted(set(places) - set(tensors)):
        raise DataError(f"{index} promises {missing[0]}, and {places[missing[0]]} does not hold it")
    return tensors


def _network_in(content: Any, path: Path) -> StoredNetwork:
    """Finds the state dict in a file's content: the content itself, or one of its entries."""
    opened = []
    while isinstance(content, Mapping):
        inner = [name for name in _NETWORKS if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        opened.append(inner[0])
        content = content[inner[0]]
    if not isinstance(content, Mapping):
        found = f"it holds a {type(content).__name__}"
    elif others := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        entries = ", ".join(map(str, list(content)[:_SHOWN_ENTRIES]))
        found = f"its entry {others[0]!r} is a {type(content[others[0]]).__name__}; entries: {entries}"
    elif not content:
        found = "it is empty"
    else:
        return StoredNetwork(dict(content), ".".join(opened))
    raise DataError(f"{path} holds no plain state dict (names and tensors): {found}")


def _what_starts_with(start: bytes) -> str:
    text = start.lstrip().lower()
    if not start:
        return "it is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page; the download was probably answered with a login or error page"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs; fetch the file itself with `git lfs pull`"
    return "neither torch.save nor safetensors wrote it"


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(f"{path} cannot be read as a file of weights: {reason}")


def _first_line(err: BaseException) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0]
