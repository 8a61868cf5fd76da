"""Every public name of upstream is here, at the same place, with the same parameters and defaults.

`recorded/api.json` lists modules, functions, classes with their methods, and values of upstream 2.8.1;
`recorded/make_api.py` made it. Ours may add parameters at the end, if they have defaults.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from dinov3.utils.atomic_files import read_json
from tests.recorded.api_signatures import describe_parameters, is_property

UPSTREAM = read_json(Path(__file__).parent / "recorded" / "api.json")
CLASSES = {
    name for module in UPSTREAM.values() for name, value in module["definitions"].items() if isinstance(value, dict)
}

# Names (below nnunetv2.) that are not here, and why.
ABSENT = {
    "preprocessing.preprocessors.default_preprocessor.example_test_case_preprocessing": (
        "a script with paths of its author's machine"
    ),
}

# Parameters (module.function.parameter) with another default: the default here, and why.
OTHER_DEFAULTS = {
    "*.num_processes": ("None", "the configured number, read when it is used and not when the module is imported"),
    "*.num_processes_preprocessing": ("None", "as num_processes"),
    "*.num_processes_segmentation_export": ("None", "as num_processes"),
    "*.num_threads_torch": ("None", "as num_processes"),
    "experiment_planning.*Planner*.__init__.gpu_memory_target_in_gb": ("None", "the number of the planner's class"),
    "experiment_planning.*Planner*.__init__.plans_name": ("None", "the name of the planner's class"),
    "run.run_training.*.device": ("None", "CUDA as upstream, but importing the module does not import torch"),
    "inference.sliding_window_prediction.compute_gaussian.device": ("device(type='cpu')", "there is one everywhere"),
    "utilities.plans_handling.plans_handler.PlansManager._internal_*.visited": ("()", "nothing is visited yet"),
    "dataset_conversion.generate_dataset_json.generate_dataset_json.license": ("'not stated'", "sober words"),
    "dataset_conversion.generate_dataset_json.generate_dataset_json.converted_by": ("'not stated'", "sober words"),
}


def names(parameters: list[str]) -> list[str]:
    return [parameter.split("=")[0] for parameter in parameters]


def default_of(parameter: str) -> str | None:
    return parameter.partition("=")[2] or None


def parameter_differences(where: str, theirs: list[str], ours: list[str]) -> Iterator[tuple[str, str]]:
    """What a caller who relies on upstream's parameters would stumble on, as (place, words)."""
    if names(ours)[: len(theirs)] != names(theirs):
        yield where, f"({', '.join(theirs)}) is ({', '.join(ours)}) here"
        return
    for parameter in ours[len(theirs) :]:
        if default_of(parameter) is None and not parameter.startswith("*"):
            yield where, f"asks for {parameter} in addition"
    for their, our in zip(theirs, ours, strict=False):
        if default_of(their) not in (None, default_of(our)):
            yield f"{where}.{names([their])[0]}", default_of(our) or "required"


def bound_parameters(owner: type, name: str) -> list[str]:
    """Parameters of a method as its caller sees them: without self."""
    parameters = describe_parameters(getattr(owner, name))
    is_bound = isinstance(inspect.getattr_static(owner, name), staticmethod | classmethod)
    return parameters if is_bound else parameters[1:]


def method_differences(where: str, theirs: Any, owner: type, name: str) -> Iterator[tuple[str, str]]:
    if not hasattr(owner, name):
        yield where, "missing"
        return
    ours = inspect.getattr_static(owner, name)
    if theirs == "property":
        if inspect.isfunction(ours):
            yield where, "a property upstream, a method here"
    elif is_property(ours):
        yield where, "a method upstream, a property here"
    elif theirs[:1] == ["static"] and not isinstance(ours, staticmethod | classmethod):
        yield where, "static upstream, not here"
    else:
        yield from parameter_differences(where, theirs[1:], bound_parameters(owner, name))


def class_differences(where: str, theirs: dict[str, Any], ours: Any) -> Iterator[tuple[str, str]]:
    if not inspect.isclass(ours):
        yield where, "a class upstream, not here"
        return
    bases = {base.__name__ for base in ours.__mro__}
    for base in (base for base in theirs["bases"] if base in CLASSES and base not in bases):
        yield where, f"does not derive from {base}"
    for name, recorded in theirs["methods"].items():
        yield from method_differences(f"{where}.{name}", recorded, ours, name)


def module_differences(name: str) -> Iterator[tuple[str, str]]:
    prefix = name.removeprefix("nnunetv2.")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as err:
        yield prefix, f"cannot be imported: {err}"
        return
    for value in UPSTREAM[name]["values"]:
        if not hasattr(module, value):
            yield f"{prefix}.{value}", "missing"
    for entry, recorded in UPSTREAM[name]["definitions"].items():
        where, ours = f"{prefix}.{entry}", getattr(module, entry, None)
        if not callable(ours):
            yield where, "missing"
        elif isinstance(recorded, dict):
            yield from class_differences(where, recorded, ours)
        else:
            yield from parameter_differences(where, recorded, describe_parameters(ours))


def exception_for(where: str, found: str) -> str | None:
    """The entry of the lists above that allows a difference."""
    if found == "missing":
        return where if where in ABSENT else None
    fitting = (pattern for pattern, (default, _) in OTHER_DEFAULTS.items() if default == found)
    return next((pattern for pattern in fitting if fnmatchcase(where, pattern)), None)


@pytest.mark.parametrize("name", UPSTREAM)
def test_module_has_upstreams_names_and_parameters(name: str) -> None:
    found = [(where, words) for where, words in module_differences(name) if exception_for(where, words) is None]
    assert not found, "\n" + "\n".join(f"{where}: {words}" for where, words in found)


def test_each_exception_is_needed() -> None:
    used = {exception_for(*found) for name in UPSTREAM for found in module_differences(name)}
    assert used - {None} == {*ABSENT, *OTHER_DEFAULTS}


def test_differences_are_found() -> None:
    """The comparison itself: each kind of difference, on classes made for it."""

    class Ours:
        attribute = 1

        @property
        def no_method(self): ...

        def no_property(self): ...

        def method(self, first, renamed): ...

        def not_static(self, first): ...

        def needs_more(self, first, second): ...

        def other_default(self, first=2): ...

        def added(self, first, second=None): ...

    theirs = {
        "method": ["self", "first", "second"],
        "not_static": ["static", "first"],
        "needs_more": ["self", "first"],
        "other_default": ["self", "first=1"],
        "absent": ["self"],
        "attribute": "property",
        "no_property": "property",
        "no_method": ["self"],
        "added": ["self", "first"],
    }
    found = dict(class_differences("Ours", {"bases": ["nnUNetTrainer"], "methods": theirs}, Ours))
    assert found == {
        "Ours": "does not derive from nnUNetTrainer",
        "Ours.method": "(first, second) is (first, renamed) here",
        "Ours.no_property": "a property upstream, a method here",
        "Ours.no_method": "a method upstream, a property here",
        "Ours.not_static": "static upstream, not here",
        "Ours.needs_more": "asks for second in addition",
        "Ours.other_default.first": "2",
        "Ours.absent": "missing",
    }
