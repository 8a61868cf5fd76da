"""The names and arguments that programs written for upstream use."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from dinov3.utils.atomic_files import read_json

MODULES = ("data_iterators", "export_prediction", "predict_from_raw_data", "sliding_window_prediction")
COMMANDS = ("predict_entry_point", "predict_entry_point_modelfolder")  # ours also take the words of the command line


def parameters(function: object) -> list[str]:
    """All but optional keyword-only arguments, which are additions that no program of upstream's users meets."""
    found = inspect.signature(function).parameters.values()
    return [one.name for one in found if one.kind is not one.KEYWORD_ONLY or one.default is one.empty]


def names_in(text: str) -> list[str]:
    return [name for name in text.removeprefix("static ").split(", ") if name]


@pytest.mark.oracle
@pytest.mark.parametrize("name", MODULES)
def test_names_and_arguments_are_those_of_upstream(name: str, oracle_recorded: Path) -> None:
    module = importlib.import_module(f"nnunetv2.inference.{name}")
    for entry, recorded in read_json(oracle_recorded / "api.json")[module.__name__].items():
        ours = getattr(module, entry)
        if isinstance(recorded, dict):
            for method, arguments in recorded["methods"].items():
                assert parameters(getattr(ours, method)) == names_in(arguments), f"{entry}.{method}"
        elif entry not in COMMANDS:
            assert parameters(ours) == names_in(recorded), entry
