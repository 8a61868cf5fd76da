"""Import paths that exist only because upstream has them: marked as such, and without code of their own."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

from nnunetv2.upstream_names import COMMANDS_ELSEWHERE, command_elsewhere
from tests.source_tree import imported_modules, module_name, source_files
from tests.test_public_api import UPSTREAM

MARKER = re.compile(r"Upstream's import path; the code is in `([\w.]+)`\.")

# Upstream's import path: the module or package that has the implementation here.
UPSTREAM_PATHS = {
    "nnunetv2.experiment_planning.experiment_planners.resencUNet_planner": (
        "nnunetv2.experiment_planning.experiment_planners.residual_unets"
    ),
    "nnunetv2.training.dataloading.nnunet_dataset": "nnunetv2.preprocessing.stored_cases",
    "nnunetv2.training.dataloading.utils": "nnunetv2.preprocessing.npz_unpacking",
    "nnunetv2.utilities.overlay_plots": "nnunetv2.utilities.overlays",
}
NO_PATHS_OF_UPSTREAM = {"nnunetv2.errors"}  # the errors that both trees share, under this package's name
MODULES = {module_name(path): path for path in source_files()}


def only_reexports(tree: ast.Module) -> bool:
    """Whether a module imports names, and has nothing else but a docstring and `__all__`."""
    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    imports = [node for node in body if isinstance(node, ast.ImportFrom) and node.module != "__future__"]
    return bool(imports) and all(isinstance(node, ast.ImportFrom) or is_all(node) for node in body)


def is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]


def test_modules_of_reexports_are_marked_and_listed() -> None:
    marked, reexporting = {}, set()
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if found := MARKER.fullmatch((ast.get_docstring(tree) or "").partition("\n")[0]):
            marked[module] = found[1]
        if path.name != "__init__.py" and only_reexports(tree):
            reexporting.add(module)
    assert marked == UPSTREAM_PATHS
    assert reexporting == {*UPSTREAM_PATHS, *NO_PATHS_OF_UPSTREAM}


@pytest.mark.parametrize("module", UPSTREAM_PATHS)
def test_path_is_upstreams_and_all_its_names_come_from_the_implementation(module: str) -> None:
    assert module in UPSTREAM
    home = UPSTREAM_PATHS[module]
    assert home in MODULES
    imported = {name.rpartition(".") for name in imported_modules(MODULES[module])}
    assert {source for source, _, _ in imported} <= {home, *(name for name in MODULES if name.startswith(f"{home}."))}
    assert {name for _, _, name in imported} == set(importlib.import_module(module).__all__)


def test_the_project_itself_uses_no_such_path() -> None:
    elsewhere = {f"{module}.{name}" for module, names in COMMANDS_ELSEWHERE.items() for name in names}
    uses = {
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imported_modules(path)
        if name in elsewhere or {name, name.rpartition(".")[0]} & UPSTREAM_PATHS.keys()
    }
    assert not uses


@pytest.mark.parametrize("module", COMMANDS_ELSEWHERE)
def test_commands_are_found_where_upstream_has_them(module: str) -> None:
    found = importlib.import_module(module)
    for name, home in COMMANDS_ELSEWHERE[module].items():
        assert name in UPSTREAM[module]["definitions"]
        assert getattr(found, name) is getattr(importlib.import_module(home), name)
        assert name in found.__all__
    with pytest.raises(AttributeError, match="has no attribute 'no_command'"):
        getattr(found, "no_command")  # noqa: B009
    with pytest.raises(AttributeError, match="'__main__' has no attribute"):
        command_elsewhere("__main__", "no_command")


def test_code_is_told_from_reexports() -> None:
    assert only_reexports(ast.parse('"""Words."""\nfrom a import b\n__all__ = ["b"]'))
    assert not only_reexports(ast.parse('"""Words."""\nfrom __future__ import annotations'))
    assert not only_reexports(ast.parse("from a import b\nc = b"))
    assert not only_reexports(ast.parse("from a import b\ndef c(): ..."))
