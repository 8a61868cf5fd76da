"""Lists the data files of a folder, without hidden files."""

from __future__ import annotations

import os
from pathlib import Path


def visible_files(folder: str | os.PathLike, ending: str = "") -> list[Path]:
    """Returns the files of a folder with this ending, sorted by name; empty if the folder does not exist.

    Hidden files are skipped: unfinished writes (`atomic_files`), and the `._x` that macOS creates next to `x`. Links
    that lead nowhere, as to a disk that is not mounted, are listed: they cannot be read, but they are not absent.
    """
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(ending) and _is_file(entry)]
    return [Path(folder, name) for name in sorted(names) if not name.startswith(".")]


def _is_file(entry: os.DirEntry) -> bool:
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
