"""Public names of modules with their parameters, as plain data; the same code describes upstream and this project.

Imports nothing but the standard library, so that it runs under both interpreters.
"""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

OBJECT_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def describe_module(module: ModuleType) -> dict[str, Any]:
    """Functions and classes that a module defines itself: `{name: parameters or {"bases": [], "methods": {}}}`."""
    return {
        name: describe_class(value) if inspect.isclass(value) else describe_parameters(value)
        for name, value in sorted(vars(module).items())
        if is_public_definition(name, value, module)
    }


def is_public_definition(name: str, value: Any, module: ModuleType) -> bool:
    if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(inspect.unwrap(value))):
        return False
    return value.__module__ == module.__name__


def describe_class(cls: type) -> dict[str, Any]:
    methods = {name: describe_member(vars(cls)[name]) for name in sorted(vars(cls)) if is_method(name, vars(cls)[name])}
    return {"bases": [base.__name__ for base in cls.__mro__[1:-1]], "methods": methods}


def is_method(name: str, member: Any) -> bool:
    """The constructor and everything that is not a name of Python's own protocols; private hooks are overridden too."""
    if name.startswith("__") and name != "__init__":
        return False
    if is_property(member) or isinstance(member, staticmethod | classmethod):
        return True
    return inspect.isfunction(inspect.unwrap(member))


def is_property(member: Any) -> bool:
    return isinstance(member, property) or type(member).__name__ == "cached_property"


def describe_member(member: Any) -> list[str] | str:
    if is_property(member):
        return "property"
    if isinstance(member, staticmethod | classmethod):
        return [type(member).__name__.removesuffix("method"), *describe_parameters(member.__func__)]
    return describe_parameters(member)


def describe_parameters(function: Any) -> list[str]:
    """`["a", "b=1", "*args", "**kwargs"]`, without annotations."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a function of a compiled extension
        return []
    return [describe_parameter(parameter) for parameter in parameters]


def describe_parameter(parameter: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    if parameter.default is inspect.Parameter.empty:
        return stars + parameter.name
    return f"{parameter.name}={describe_default(parameter.default)}"


def describe_default(value: Any) -> str:
    """Functions and classes by name, everything else as Python prints it."""
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__qualname__
    return OBJECT_ADDRESS.sub("", repr(value))
