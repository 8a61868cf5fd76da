"""Classes that a parsed file registers by a decorator, and those that it forgot to register."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nnunetv2.utilities.class_lookup import python_files


def registrations(tree: ast.Module, decorator: str) -> Iterator[tuple[ast.ClassDef, str]]:
    """Yields each decorated class with its registered name, which is a literal."""
    for node in _classes(tree):
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and _last_name(call.func) == decorator and call.args:
                argument = call.args[0]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node, argument.value


def missing_registrations(folders: Iterable[Path], decorator: str, bases: Sequence[str], name: str) -> list[str]:
    """Describes what may be the cause that a name is not registered.

    Args:
        folders: of users.
        decorator: such as `register_head`.
        bases: names of the classes that registered classes derive from.
        name: the name that was not found.

    Returns:
        One phrase per class that derives from a base without being registered, and per file that mentions the
        decorator and is not valid Python.
    """
    found = []
    for path in (path for folder in folders for path in sorted(python_files(folder))):
        text = path.read_bytes()
        if not any(word.encode() in text for word in (decorator, *bases)):
            continue
        try:
            tree = ast.parse(text, filename=str(path))
        except SyntaxError as err:
            found.append(f"{path}, line {err.lineno}, is not valid Python: {err.msg}")
        except ValueError as err:
            found.append(f"{path} is not valid Python: {err}")
        else:
            found += [
                f'{path}, line {node.lineno}: the class {node.name} is not registered; put @{decorator}("{name}") '
                f"above it, with the name as a literal"
                for node in _unregistered(tree, decorator, bases)
            ]
    return found


def _unregistered(tree: ast.Module, decorator: str, bases: Sequence[str]) -> list[ast.ClassDef]:
    """Classes that derive from a base, also through other classes of the file, and that no other class derives from."""
    known, derived = set(bases), []
    for node in _classes(tree):
        if known & {_last_name(base) for base in node.bases}:
            known.add(node.name)
            derived.append(node)
    registered = {node.name for node, _ in registrations(tree, decorator)}
    parents = {_last_name(base) for node in derived for base in node.bases}
    return [node for node in derived if node.name not in registered | parents]


def _classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def _last_name(node: ast.expr) -> str:
    """`c` of the expression `a.b.c`."""
    return ast.unparse(node).rpartition(".")[2]
