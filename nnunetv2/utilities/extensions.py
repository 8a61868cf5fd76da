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
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov3.utils.yaml_config import require_choice
from nnunetv2.errors import UsageError
from nnunetv2.utilities.class_lookup import (
    EXTENSIONS,
    folders_of_variable,
    import_file,
    make_importable,
    python_files,
    warn_of_invalid_file,
)
from nnunetv2.utilities.file_errors import reported_with_place
from nnunetv2.utilities.partial_import import nested_class
from nnunetv2.utilities.registrations import missing_registrations, registrations

CONFIG = "Config"  # name of the nested settings class

_PACKAGES = {
    "head": "nnunetv2.model.heads",
    "loss": "nnunetv2.training.loss",
    "metric": "nnunetv2.comparison.metrics",
    "backbone": "nnunetv2.model.families",
    "reader": "nnunetv2.imageio",
}

# Classes that extensions derive from, besides those that are registered.
_BASES = {
    "head": ("DenseHead", "QueryHead", "Head"),
    "loss": ("DenseLoss", "QueryLoss", "NamedLoss"),
    "metric": ("Metric",),
    "backbone": ("TimmBackbone", "Backbone"),
    "reader": ("BaseReaderWriter",),
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
    def identity(self) -> tuple[Path, str]:
        """File and class; equal for a folder that is named twice."""
        return self.path.resolve(), self.definition

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def load(self) -> Any:
        """Import the file and return the class.

        Raises:
            UserFileError: the file of a user cannot be imported, or its class is rejected by the decorator.
        """
        if self.is_external:
            with reported_with_place(self.path, self.root):
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
        """A class nested in the registered one; read without importing the rest of the file if possible.

        A class that is not defined in the file is inherited from a base, which takes an import of the whole file.

        Raises:
            UserFileError: what the nested class needs of a user's file cannot be imported.
        """
        if not self.is_external:
            is_imported = self._module in sys.modules
            found = None if is_imported else nested_class(self.path, self.definition, name)
        else:
            make_importable(self.root)  # the class may refer to a neighbour of its file
            with reported_with_place(self.path, self.root):
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
        _require_one(known[name])
        return known[name][0]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    where = "" if extension_folders() else f" ({EXTENSIONS} names no folder of your own)"
    raise UsageError(
        f"There is no {kind} {name!r}; registered are {', '.join(known)}{where}{hint}{unregistered_hint(kind, name)}"
    )


def require_registered(setting: str, kind: str, name: str) -> None:
    """Raise `UsageError` unless a setting is a registered name; `setting` is its dotted name."""
    try:
        require_choice(setting, name, names(kind))
    except UsageError as err:
        raise UsageError(f"{err}{unregistered_hint(kind, name)}") from err


def of_users(kind: str) -> list[Extension]:
    """Extensions in the folders of users; a name that two files register occurs twice."""
    return [each for registered in _all(kind).values() for each in registered if each.is_external]


def summaries(kind: str) -> dict[str, str]:
    """First line of the docstring of each extension by name; of a name that two files register, both files."""
    return {
        name: each[0].summary if len(each) == 1 else f"unusable: registered by {_places(each)}"
        for name, each in _all(kind).items()
    }


def unregistered_hint(kind: str, name: str) -> str:
    """Ending of an error message: files of users that may be meant by a name, but do not register it; or empty."""
    bases = (*_BASES[kind], *(each.definition for each in _of_package(kind).values()))
    return "".join(f"; {each}" for each in missing_registrations(extension_folders(), f"register_{kind}", bases, name))


def extension_folders() -> list[Path]:
    """Folders listed in `nnUNet_extensions`. Raises `UsageError` if one of them does not exist."""
    return folders_of_variable(EXTENSIONS)


def _all(kind: str) -> dict[str, list[Extension]]:
    """Extensions by name; more than one if the name is registered several times."""
    found = {name: [extension] for name, extension in _of_package(kind).items()}
    for folder in extension_folders():
        for extension in _below(kind, folder, None):
            registered = found.setdefault(extension.name, [])
            if extension.identity not in [other.identity for other in registered]:
                registered.append(extension)
    return found


def _require_one(registered: list[Extension]) -> None:
    if len(registered) > 1:
        first = registered[0]
        raise UsageError(
            f"The {first.kind} {first.name!r} is registered by {_places(registered)}; give one of them another name"
        )


def _places(registered: list[Extension]) -> str:
    return " and by ".join(f"{each.definition} of {each.path}" for each in registered)


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
            warn_of_invalid_file(path, str(err))
            continue
        for node, name in registrations(tree, f"register_{kind}"):
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            yield Extension(kind, name, node.name, path, folder, package, summary)
