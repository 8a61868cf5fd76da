"""Find a class or function of a package by its name, importing nothing but the module that defines it."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from nnunetv2.errors import UsageError

EXTERNAL_TRAINERS = "nnUNet_extTrainer"  # os.pathsep-separated list of folders with users' trainers

_PACKAGES = {
    "trainer": "nnunetv2.training.nnUNetTrainer",
    "experiment planner": "nnunetv2.experiment_planning",
    "fingerprint extractor": "nnunetv2.experiment_planning",
    "preprocessor": "nnunetv2.preprocessing",
    "resampling function": "nnunetv2.preprocessing.resampling",
    "normalization scheme": "nnunetv2.preprocessing.normalization",
    "image reader/writer": "nnunetv2.imageio",
    "label manager": "nnunetv2.utilities.label_handling",
}


def find_by_name(kind: str, name: str) -> Any:
    """Returns the class or function `name` of the given kind, for example `("trainer", "nnUNetTrainer")`.

    Trainers are also looked for in the folders of the environment variable `nnUNet_extTrainer`.

    Raises:
        UsageError: nothing of that name is defined; the message lists the nearest names.
    """
    package = _PACKAGES[kind]
    folder = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    definitions = _definitions_below(folder)
    if name in definitions:
        module = ".".join((package, *definitions[name].relative_to(folder).with_suffix("").parts))
        return getattr(importlib.import_module(module), name)
    known = set(definitions)
    if kind == "trainer":
        for external in _external_trainer_folders():
            definitions = _definitions_below(external)
            if name in definitions:
                return getattr(_import_file(definitions[name], external), name)
            known |= set(definitions)
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    extra = f" (or in the folders named by {EXTERNAL_TRAINERS})" if kind == "trainer" else ""
    raise UsageError(f"There is no {kind} named {name!r} in {package}{extra}{hint}")


@functools.cache
def _definitions_below(folder: Path) -> dict[str, Path]:
    """Maps each top-level class and function name to its file; the file nearest to `folder` wins a tie."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py"), key=lambda p: (len(p.parts), str(p))):
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found.setdefault(node.name, path)
    return found


def _external_trainer_folders() -> list[Path]:
    folders = [Path(entry) for entry in os.environ.get(EXTERNAL_TRAINERS, "").split(os.pathsep) if entry]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{EXTERNAL_TRAINERS} names {folder}, which is not a folder")
    return folders


def _import_file(path: Path, root: Path) -> Any:
    """Imports one file of a user's folder; the folder joins `sys.path` so that the file can import its neighbours."""
    if str(root) not in sys.path:
        sys.path.append(str(root))
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    return importlib.import_module(name)
