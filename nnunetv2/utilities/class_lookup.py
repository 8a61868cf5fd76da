"""Find a class or function of a package by name, importing only the module that defines it."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunetv2.errors import UsageError
from nnunetv2.utilities.file_errors import reported_with_place

logger = logging.getLogger(__name__)

# Both variables hold os.pathsep-separated lists of users' folders.
EXTERNAL_TRAINERS = "nnUNet_extTrainer"  # trainers
EXTENSIONS = "nnUNet_extensions"  # trainers, readers, and everything else of `nnunetv2.utilities.extensions`

_PACKAGES = {
    "trainer": "nnunetv2.training.nnUNetTrainer",
    "experiment planner": "nnunetv2.experiment_planning",
    "fingerprint extractor": "nnunetv2.experiment_planning",
    "preprocessor": "nnunetv2.preprocessing",
    "resampling function": "nnunetv2.preprocessing.resampling",
    "normalization scheme": "nnunetv2.preprocessing.normalization",
    "image reader/writer": "nnunetv2.imageio",
    "label manager": "nnunetv2.utilities.label_handling",
    "network architecture": "dynamic_network_architectures.architectures",
}

# Kinds that are also looked for in folders of users.
_VARIABLES = {"trainer": (EXTERNAL_TRAINERS, EXTENSIONS), "image reader/writer": (EXTENSIONS,)}

_SHARED_BASES = {"AbstractPrimus"}  # of trainers; they cannot train, so none of them is meant


def find_by_name(kind: str, name: str) -> Any:
    """Find the class or function `name` of a kind, for example `("trainer", "nnUNetTrainer")`.

    Trainers and readers are also looked for in the folders of the environment variable `nnUNet_extensions`, trainers in
    those of `nnUNet_extTrainer` as well.

    Raises:
        UsageError: the name is not defined, with a suggestion of similar names; or the user's file that defines it
            cannot be imported.
    """
    package = _PACKAGES[kind]
    folder = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    definitions = _definitions_of_package(folder)
    if name in definitions:
        return getattr(importlib.import_module(_module_name(definitions[name], folder, package)), name)
    known = set(definitions)
    variables = _VARIABLES.get(kind, ())
    for external in (folder for variable in variables for folder in folders_of_variable(variable)):
        definitions = definitions_below(external)
        if name in definitions:
            with reported_with_place(definitions[name], external):
                return getattr(import_file(definitions[name], external), name)
        known |= set(definitions)
    eligible = sorted(each for each in known - _SHARED_BASES if not each.startswith("_"))
    near = difflib.get_close_matches(name, eligible, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    extra = f" (or in the folders named by {' and '.join(variables)})" if variables else ""
    raise UsageError(f"There is no {kind} named {name!r} in {package}{extra}{hint}")


def find_in_folder(folder: Path, name: str, package: str | None = None) -> Any:
    """Find the class or function `name` in the files below `folder`; None if no file defines it.

    Args:
        package: dotted name of the folder, if it is an importable package.
    """
    path = definitions_below(folder).get(name)
    if path is None:
        return None
    if package is None:
        return getattr(import_file(path, folder), name)
    return getattr(importlib.import_module(_module_name(path, folder, package)), name)


def definitions_below(folder: Path) -> dict[str, Path]:
    """Map each top-level class and function name to its file; for duplicates the file nearest to `folder` wins.

    Files that are not valid Python are skipped with a warning.
    """
    found: dict[str, Path] = {}
    for path in sorted(python_files(folder), key=lambda p: (len(p.parts), str(p))):
        try:
            tree = ast.parse(path.read_bytes(), filename=str(path))
        except (SyntaxError, ValueError) as err:
            warn_of_invalid_file(path, str(err))
            continue
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.setdefault(node.name, path)
    return found


@functools.cache  # a command looks names up many times
def warn_of_invalid_file(path: Path, reason: str) -> None:
    """Logs once that a file is passed over."""
    logger.warning("Skipping %s, which is not valid Python: %s", path, reason)


_definitions_of_package = functools.cache(definitions_below)  # users' folders are not cached: they may change


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files below a folder, skipping hidden folders and `__pycache__`."""
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__"))]
        yield from (Path(parent, name) for name in names if name.endswith(".py"))


def folders_of_variable(variable: str) -> list[Path]:
    """Folders listed in an environment variable. Raises `UsageError` if one of them does not exist."""
    folders = [Path(entry) for entry in os.environ.get(variable, "").split(os.pathsep) if entry.strip()]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{variable} names {folder}, which is not a folder")
    return folders


def external_trainer_folders() -> list[Path]:
    """Folders searched for users' trainers. Raises `UsageError` if one of them does not exist."""
    return folders_of_variable(EXTERNAL_TRAINERS) + folders_of_variable(EXTENSIONS)


def import_external_module(name: str) -> ModuleType | None:
    """Import a module by dotted name from the users' trainer folders; None if no folder has it."""
    for folder in external_trainer_folders():
        base = folder.joinpath(*name.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return import_file(path, folder)
    return None


def _module_name(path: Path, root: Path, package: str | None = None) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts if package is None else (package, *parts))


def make_importable(folder: Path) -> None:
    """Lets files of a user's folder import their neighbours."""
    if str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))


def import_file(path: Path, root: Path) -> ModuleType:
    """Import a file of a user's folder; the folder is added to `sys.path`, so that the file can import its neighbours.

    If its name already belongs to another module (`utils.py` in two folders), it is imported under a unique alias.
    """
    path = path.resolve()
    root = root.resolve()
    make_importable(root)
    name = _module_name(path, root)
    try:
        found = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        found = None
    if found is not None and found.origin is not None and Path(found.origin).resolve() == path:
        return importlib.import_module(name)
    alias = f"{name.replace('.', '_')}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if alias not in sys.modules:
        spec = importlib.util.spec_from_file_location(alias, path)
        module = importlib.util.module_from_spec(spec)
        # Registered before execution: dataclasses resolve annotations through sys.modules.
        sys.modules[alias] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[alias]
            raise
    return sys.modules[alias]
