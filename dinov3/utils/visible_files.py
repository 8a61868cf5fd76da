"""The files of a folder that are data, which those with a leading dot are not."""

from __future__ import annotations

import os
from pathlib import Path


def visible_files(folder: str | os.PathLike, ending: str = "") -> list[Path]:
    """Returns the files of a folder whose names have this ending, sorted by name; none if there is no such folder.

    Names with a leading dot are left out: files that are being written, or were when their process was killed
    (`atomic_files`), and the `._x` that macOS leaves beside `x`.
    """
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(ending) and entry.is_file()]
    return [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
