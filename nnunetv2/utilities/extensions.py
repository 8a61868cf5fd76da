"""Registry of extensions (heads, losses, metrics, backbones, readers), found by their registered names.

A file registers a class by a decorator with a literal name, for example

    @register_head("dpt")
    class DPTHead(DenseHead): ...

The package's own files are in one folder per kind. Users' files are in the folders listed in the environment variable
`nnUNet_extensions`, all kinds together. Files are parsed first, and imported only when their name is requested.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.errors import UsageError
from nnunetv2.utilities.class_lookup import (
    EXTENSIONS,
    folders_of_variable,
    import_file,
    make_importable,
    python_files,
)
from nnunetv2.utilities.partial_import import nested_class

logger = logging.getLogger(__name__)

CONFIG = "Config"  # name of the nested settings class

_PACKAGES = {
    "head": "nnunetv2.model.heads",
    "loss": "nnunetv2.training.loss",
    "metric": "nnunetv2.comparison.metrics",
    "backbone": "nnunetv2.model.families",
    "reader": "nnunetv2.imageio",
}


@dataclass(frozen=True)
class Extension:
    """A class that a file registers under a name."""

    kind: str
    """Kind of extension, such as `head`; the decorator is `register_<kind>`."""
    name: str
    definition: str
    """Name of the class."""
    path: Path
    root: Path
    """Folder of the file: a package, or a user's folder."""
    package: str | None
    """Dotted name of `root`; None for a user's folder."""
    summary: str
    """First line of the class's docstring."""

    @property
    def is_external(self) -> bool:
        return self.package is None

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def load(self) -> Any:
        """Import the file and return the class."""
        if self.is_external:
            return getattr(import_file(self.path, self.root), self.definition)
        return getattr(importlib.import_module(self._module), self.definition)

    def config(self) -> type:
        """The class of its settings. Raises `UsageError` if it has fields and is no dataclass."""
        found = self.nested(CONFIG)
        if vars(found).get("__annotations__") and "__dataclass_fields__" not in vars(found):
            raise UsageError(
                f"{self.path}: put @dataclass on {self.definition}.{CONFIG}, whose fields are no settings yet"
            )
        return found

    def nested(self, name: str) -> type:
        """A class nested in the registered one; read without importing the rest of the file if possible."""
        if not self.is_external and self._module in sys.modules:
            return getattr(self.load(), name)
        if self.is_external:
            make_importable(self.root)  # the class may refer to a neighbour of its file
        found = nested_class(self.path, self.definition, name)
        return getattr(self.load(), name) if found is None else found

    @property
    def _module(self) -> str:
        inner = self.path.relative_to(self.root).with_suffix("").parts
        return ".".join((self.package, *inner))


def names(kind: str) -> tuple[str, ...]:
    """Registered names of a kind: the package's own in alphabetical order, then those of users."""
    return tuple(_all(kind))


def find(kind: str, name: str) -> Extension:
    """Find the extension registered under a name.

    Raises:
        UsageError: the name is unknown (lists the known ones), or registered by two files.
    """
    known = _all(kind)
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    where = "" if extension_folders() else f" ({EXTENSIONS} names no folder of your own)"
    raise UsageError(f"There is no {kind} {name!r}; registered are {', '.join(known)}{where}{hint}")


def extension_folders() -> list[Path]:
    """Folders listed in `nnUNet_extensions`. Raises `UsageError` if one of them does not exist."""
    return folders_of_variable(EXTENSIONS)


def _all(kind: str) -> dict[str, Extension]:
    found = dict(_of_package(kind))
    for folder in extension_folders():
        for extension in _below(kind, folder, None):
            other = found.get(extension.name)
            if other is not None and other.path.resolve() != extension.path.resolve():
                raise UsageError(
                    f"The {kind} {extension.name!r} is registered by {other.path} and by {extension.path}; "
                    f"give one of them another name"
                )
            found[extension.name] = extension
    return found


@functools.cache  # users' files may change while a notebook is running, the package's own do not
def _of_package(kind: str) -> dict[str, Extension]:
    package = _PACKAGES[kind]
    spec = importlib.util.find_spec(package)
    folder = Path(spec.submodule_search_locations[0])
    return {each.name: each for each in sorted(_below(kind, folder, package), key=lambda each: each.name)}


def _below(kind: str, folder: Path, package: str | None) -> Iterator[Extension]:
    for path in sorted(python_files(folder)):
        text = path.read_bytes()
        # A substring test is far cheaper than parsing, and most files register nothing of this kind.
        if f"register_{kind}".encode() not in text:
            continue
        try:
            tree = ast.parse(text, filename=str(path))
        except (SyntaxError, ValueError) as err:
            logger.warning("Skipping %s, which is not valid Python: %s", path, err)
            continue
        for node, name in _registrations(tree, f"register_{kind}"):
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            yield Extension(kind, name, node.name, path, folder, package, summary)


def _registrations(tree: ast.Module, decorator: str) -> Iterator[tuple[ast.ClassDef, str]]:
    """Yield each decorated class with its registered name."""
    for node in tree.body:
        for call in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] == decorator and call.args:
                argument = call.args[0]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node, argument.value
