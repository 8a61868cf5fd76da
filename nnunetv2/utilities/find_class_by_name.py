"""Upstream's way to find classes by name, on top of `class_lookup`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunetv2.utilities.class_lookup import find_in_folder


@contextmanager
def temporarily_extend_syspath(path: str | os.PathLike) -> Iterator[None]:
    """Puts a folder in front of `sys.path` while the block runs, unless it is there already."""
    entry = os.path.abspath(path)
    added = entry not in sys.path
    if added:
        sys.path.insert(0, entry)
    try:
        yield
    finally:
        if added and entry in sys.path:
            sys.path.remove(entry)


@contextmanager
def temporarily_cleanup_imports_from_path(path: str | os.PathLike) -> Iterator[None]:
    """Forgets, at the end of the block, the modules that the block imported from below `path`."""
    root = Path(path).resolve()
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if _lies_below(sys.modules[name], root):
                del sys.modules[name]


def _lies_below(module: ModuleType | None, root: Path) -> bool:
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(root in Path(place).resolve().parents or Path(place).resolve() == root for place in places if place)


def recursive_find_python_class(
    folder: str | os.PathLike,
    class_name: str,
    current_module: str | None,
    base_folder: str | os.PathLike | None = None,
    verbose: bool = False,
    cleanup_imports_from_base_folder: bool = False,
) -> Any:
    """Returns the class or function of that name that a file below `folder` defines, or None.

    Only the module that defines it is imported.

    Args:
        current_module: dotted name of `folder`, or None if it is no package.
        base_folder: folder to import from, by default `folder`.
        verbose: has no effect; the search imports nothing that could be worth a message.
        cleanup_imports_from_base_folder: forget the modules imported from `base_folder` afterwards.
    """
    base = folder if base_folder is None else base_folder
    with ExitStack() as stack:
        stack.enter_context(temporarily_extend_syspath(base))
        if cleanup_imports_from_base_folder:
            stack.enter_context(temporarily_cleanup_imports_from_path(base))
        return find_in_folder(Path(folder), class_name, current_module)
