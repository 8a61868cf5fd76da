"""Import one nested class of a file together with the definitions that it refers to, but nothing else of the file."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType


class _SliceLoader(importlib.abc.InspectLoader):
    """Executes the statements of a file that a nested class needs."""

    def __init__(self, path: Path, outer: str, inner: str) -> None:
        self.path, self.outer, self.inner = path, outer, inner

    def get_source(self, fullname: str) -> str:
        return self.path.read_text(encoding="utf-8")

    def get_code(self, fullname: str) -> CodeType:
        # InspectLoader writes no bytecode: cached bytecode of a slice would be loaded as the whole module.
        return self.source_to_code(slice_for(ast.parse(self.get_source(fullname)), self.outer, self.inner), self.path)


def nested_class(path: Path, outer: str, inner: str) -> type | None:
    """Import the class `inner` nested in the class `outer`, without importing the whole file.

    The settings of a network can thus be defined beside the network and read without importing torch: imports,
    constants and functions of the file run only if the nested class refers to them.

    Args:
        path: Python file.
        outer: name of a top-level class.
        inner: name of a class nested in it.

    Returns:
        The class, whose module is a partial one; None if the file has no such class.
    """
    if _find(ast.parse(path.read_text(encoding="utf-8")), outer, inner) is None:
        return None
    name = f"{path.stem}.{outer}.{inner}@{path}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_loader(name, _SliceLoader(path, outer, inner), origin=str(path))
        spec.has_location = True
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses resolve annotations through it
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        getattr(module, inner).__qualname__ = f"{outer}.{inner}"  # inspect finds the source by it
    return getattr(sys.modules[name], inner)


def slice_for(tree: ast.Module, outer: str, inner: str) -> ast.Module:
    """Part of a module that a nested class needs, with this class moved to the top level."""
    target = _find(tree, outer, inner)
    bound_by = {name: statement for statement in tree.body for name in _bound_names(statement)}
    used: set[str] = set()
    waiting = list(_names_in(target))
    while waiting:
        name = waiting.pop()
        if name in used or name not in bound_by:
            continue
        used.add(name)
        if not isinstance(bound_by[name], (ast.Import, ast.ImportFrom)):
            waiting += _names_in(bound_by[name])
    body = [kept for statement in tree.body if (kept := _kept(statement, used)) is not None]
    return ast.Module(body=[*body, target], type_ignores=[])


def _find(tree: ast.Module, outer: str, inner: str) -> ast.ClassDef | None:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == outer]
    nested = [node for kind in classes for node in kind.body if isinstance(node, ast.ClassDef) and node.name == inner]
    return nested[0] if nested else None


def _kept(statement: ast.stmt, used: set[str]) -> ast.stmt | None:
    if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
        return statement
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        aliases = [alias for alias in statement.names if _bound_by_alias(alias) in used]
        if not aliases:
            return None
        fields = dict(ast.iter_fields(statement)) | {"names": aliases}
        return ast.copy_location(type(statement)(**fields), statement)
    return statement if used & set(_bound_names(statement)) else None


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        yield from map(_bound_by_alias, statement.names)
    elif isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield statement.name
    else:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _bound_by_alias(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _names_in(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement reads; annotations are names too, under `from __future__ import annotations`."""
    for child in ast.walk(node):
        if isinstance(child, ast.Name):
            yield child.id
