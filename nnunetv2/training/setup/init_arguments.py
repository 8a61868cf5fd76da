"""Records the constructor arguments of a trainer for its checkpoints."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from nnunetv2.errors import UsageError

_PLAIN = (type(None), bool, int, float, str)


def bound_arguments(init: Callable[..., None], args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Maps the parameters of a constructor to the values of one call, including defaults, without `self`.

    `**kwargs` are merged by name. For an invalid call, the dict is empty: Python reports it when the constructor runs.
    """
    signature = inspect.signature(init)
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError:
        return {}
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named.update(bound.arguments[name])
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            named[name] = bound.arguments[name]
    return named


def with_added(common: Mapping[str, Any], given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Combines common arguments with those that a subclass adds, as plain data; paths become text.

    Args:
        common: arguments of the base class, stored as they are.
        given: all arguments of the subclass's constructor.
        owner: name of the subclass for error messages.

    Raises:
        UsageError: an added value is not plain data (None, bool, int, float, str, or lists, tuples and dicts of these).
    """
    added = {name: value for name, value in given.items() if name not in common}
    return {**common, **{name: _plain(value, f"{owner}({name}=...)") for name, value in added.items()}}


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item, where) for item in value)
    if isinstance(value, dict):
        return {_plain(key, where): _plain(item, where) for key, item in value.items()}
    raise UsageError(
        f"{where} is a {type(value).__name__}; arguments that a trainer adds are stored in checkpoints and must be "
        f"plain data: None, bool, int, float, str, or lists, tuples and dicts of these"
    )
