"""The trainers of the three models are small, because they say only what differs."""

from __future__ import annotations

import ast
from pathlib import Path

import nnunetv2.training.nnUNetTrainer as trainers

FOLDER = Path(trainers.__path__[0])
BASES = ("nnUNetTrainer", "nnUNetTrainer_vit")
CUSTOM = ("nnUNetTrainer_mymodel", "nnUNetTrainer_segformer", "nnUNetTrainer_m2f")


def source(name: str) -> str:
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def statements(name: str) -> set[str]:
    """What the methods of a trainer do, one statement each, without documentation; blocks by their first lines."""
    functions = [node for node in ast.walk(ast.parse(source(name))) if isinstance(node, ast.FunctionDef)]
    found = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.stmt)]
    texts = {ast.unparse(node).splitlines()[0] for node in found if not isinstance(node, ast.FunctionDef)}
    return {text for text in texts if not text.startswith(("'", '"', "super().__init__"))}


def test_together_they_have_fewer_than_400_lines():
    assert sum(len(source(name).splitlines()) for name in CUSTOM) < 400


def test_they_repeat_no_statement_of_their_base_classes():
    inherited = set().union(*map(statements, BASES))
    assert len(inherited) > 150
    for name in CUSTOM:
        assert f"class {name}(" in source(name)
        assert not statements(name) & inherited
