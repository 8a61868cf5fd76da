"""Read JSON files of unknown origin: any Unicode encoding, bounded size and depth, one error for all that is wrong."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from dinov3.utils.errors import DataError

LARGEST_FILE = 2**28  # bytes; parsed JSON needs up to 25 times its size
MAX_DEPTH = 100  # nested lists and objects; the files of this project have at most ten

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_INNERMOST = re.compile(rb"\[\]|\{\}")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"\\'))


class _KeyGivenTwiceError(ValueError):
    pass


def read_json(path: str | os.PathLike, *, largest: int = LARGEST_FILE, unique_keys: bool = False) -> Any:
    """Read a JSON file in UTF-8, UTF-16 or UTF-32, with or without byte order mark.

    Args:
        largest: size limit in bytes.
        unique_keys: reject objects that have a key twice; otherwise the last one wins, as in Python.

    Raises:
        DataError: the file is too large, too deeply nested, in another encoding, or not JSON. The message has the path
            and, where it can be told, the line.
        OSError: the file does not exist or cannot be read.
    """
    size = os.path.getsize(path)
    if size > largest:
        raise DataError(
            f"{os.fspath(path)} has {size / 2**20:.0f} MB; JSON files of this kind are read up to "
            f"{largest / 2**20:.0f} MB, so it is probably another file"
        )
    return parse_json(Path(path).read_bytes(), os.fspath(path), unique_keys=unique_keys)


def parse_json(raw: bytes, name: str, *, unique_keys: bool = False) -> Any:
    """Parse the bytes of a JSON file; see `read_json`.

    Args:
        name: of the file, for messages.
    """
    text = _decoded(raw, name)
    try:
        content = json.loads(text, object_pairs_hook=_object_with_unique_keys if unique_keys else None)
    except json.JSONDecodeError as err:
        raise DataError(f"{name} is not valid JSON (line {err.lineno}: {err.msg}); correct or remove the file") from err
    except RecursionError as err:
        raise DataError(_too_deep(name)) from err
    except _KeyGivenTwiceError as err:
        raise DataError(
            f"{name} has the key {err.args[0]!r} twice in one object, so one of the two would be ignored; remove one"
        ) from err
    except ValueError as err:  # Python's limit for converting text to an integer
        raise DataError(
            f"{name} has an integer of thousands of digits, which no field takes; correct the file"
        ) from err
    if _is_deeper(text, MAX_DEPTH):
        raise DataError(_too_deep(name))
    return content


def _decoded(raw: bytes, name: str) -> str:
    encoding = json.detect_encoding(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as err:
        line = raw[: err.start].count(b"\n") + 1
        raise DataError(
            f"{name} is not in UTF-8 (line {line} has the byte 0x{raw[err.start]:02x}); programs of Windows often "
            f"write Windows-1252 (ANSI) or another local encoding: save it as UTF-8 in a text editor, or run "
            f"iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW_FILE"
        ) from err


def _object_with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _KeyGivenTwiceError(twice)
    return content


def _too_deep(name: str) -> str:
    return f"{name} nests lists and objects more than {MAX_DEPTH} deep, as no file of this kind does; correct the file"


def _is_deeper(valid_json: str, limit: int) -> bool:
    """Whether lists and objects are nested more than `limit` deep; as fast as searching the text."""
    if valid_json.count("[") + valid_json.count("{") <= limit:
        return False
    raw = valid_json.encode("utf-8", "surrogatepass")
    structure = _STRING.sub(b"", raw if b"\\" in raw else raw.translate(None, _NOT_STRUCTURE))
    structure = structure.translate(None, _NOT_STRUCTURE)
    for _ in range(limit):  # each round removes the innermost level
        shorter = _INNERMOST.sub(b"", structure)
        if len(shorter) == len(structure):
            break
        structure = shorter
    return bool(structure)
