"""Upstream's interface for finding classes by name, implemented with `class_lookup`."""

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
    """Prepend a folder to `sys.path` within a block, unless it is already there."""
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
    """Unload, at the end of a block, the modules that it imported from below `path`."""
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
    """Find the class or function of this name in the files below `folder`; None if no file defines it.

    Imports only the defining module.

    Args:
        current_module: dotted name of `folder`, or None if it is not a package.
        base_folder: folder to import from, by default `folder`.
        verbose: ignored; kept for upstream's callers.
        cleanup_imports_from_base_folder: unload the modules imported from `base_folder` afterwards.
    """
    base = folder if base_folder is None else base_folder
    with ExitStack() as stack:
        stack.enter_context(temporarily_extend_syspath(base))
        if cleanup_imports_from_base_folder:
            stack.enter_context(temporarily_cleanup_imports_from_path(base))
        return find_in_folder(Path(folder), class_name, current_module)
