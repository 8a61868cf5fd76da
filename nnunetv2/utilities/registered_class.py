"""Check a class when it is registered, so that what it lacks is reported before it is used."""

from __future__ import annotations

import inspect
from typing import Any

from nnunetv2.errors import UsageError


def require_complete(definition: Any, *bases: type) -> None:
    """Rejects a class that does not implement its base.

    Args:
        definition: what is decorated.
        bases: one of them must be a base of the class.

    Raises:
        UsageError: it is not derived from a base, lacks abstract methods, or has one with too few or too many
            arguments.
    """
    base = next((each for each in bases if isinstance(definition, type) and issubclass(definition, each)), None)
    if base is None:
        accepted = " or ".join(f"{each.__name__} of {each.__module__}" for each in bases)
        raise UsageError(f"{definition.__name__} must be a class that derives from {accepted}")
    if missing := sorted(definition.__abstractmethods__):
        wanted = ", ".join(f"{name}{_parameters(base, name)}" for name in missing)
        raise UsageError(f"{definition.__name__} must define {wanted}, see {base.__name__} of {base.__module__}")
    for name in sorted(base.__abstractmethods__):
        if not _accepts(definition, base, name):
            raise UsageError(
                f"{definition.__name__}.{name}{_parameters(definition, name)} must accept the arguments "
                f"{_parameters(base, name)} of {base.__name__}"
            )


def _accepts(definition: type, base: type, name: str) -> bool:
    """True if a method can be called with the required arguments that its base declares."""
    if not callable(getattr(definition, name)):
        return False
    required = [each for each in _signature(base, name).parameters.values() if each.default is each.empty]
    by_name = {each.name: None for each in required if each.kind is each.KEYWORD_ONLY}
    by_place = [None] * (len(required) - len(by_name))
    if isinstance(inspect.getattr_static(definition, name), (staticmethod, classmethod)):
        by_place = by_place[1:]  # no self
    try:
        _signature(definition, name).bind(*by_place, **by_name)
    except TypeError:
        return False
    return True


def _parameters(definition: type, name: str) -> str:
    """The names of a method's parameters, such as `(self, pair)`."""
    if not callable(getattr(definition, name)):
        return ", which is no method,"
    return f"({', '.join(_signature(definition, name).parameters)})"


def _signature(definition: type, name: str) -> inspect.Signature:
    return inspect.signature(getattr(definition, name))
