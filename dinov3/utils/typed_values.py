"""Converts values from YAML to the annotated types of dataclass fields."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from enum import Enum
from typing import Any, Union, get_args, get_origin

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_MANY = {int: "whole numbers", float: "numbers", bool: "true or false values", str: "words"}
_ONE = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
_EXAMPLE = {int: "[1,2]", float: "[0.5,2]", bool: "[true,false]", str: "[a,b]"}


class NotAcceptedError(ValueError):
    """A value that cannot be converted to an annotation."""


def convert(value: Any, hint: Any, text: str | None = None) -> Any:
    """Converts a value to the annotated type.

    Numbers may be strings ("inf", "1e-3"), integers may be floats without fraction (1e4), and enum members may be given
    by name or value.

    Args:
        value: None, a bool, a number, a string, or lists and dictionaries of those.
        hint: `int`, `float`, `bool`, `str`, an `Enum`, `list[...]`, `tuple[...]`, `dict[str, ...]`, `Any`, or a union
            of them; in a union, the first matching member is used, `str` last.
        text: Original text of a number, for string fields: a folder named 007 stays 007.

    Raises:
        NotAcceptedError: the value cannot be converted.
    """
    if hint is Any or (isinstance(hint, type) and issubclass(hint, Enum) and isinstance(value, hint)):
        return value
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, get_args(hint), text)
    if origin in (list, tuple):
        return _sequence(value, hint, origin)
    if origin is dict:
        return _mapping(value, hint)
    if issubclass(origin, Enum):
        return _member(value, origin)
    if origin not in _SCALARS:
        raise TypeError(f"Fields of type {hint!r} are not supported.")
    return _SCALARS[origin](value, text)


def describe(hint: Any) -> str:
    """Describes what `convert` accepts for an annotation, as object of the verb "give"."""
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member) for member in get_args(hint))
    if origin in (list, tuple):
        item = (get_args(hint) or (Any,))[0]
        return f"a list of {_MANY.get(item, 'values')} such as {_EXAMPLE.get(item, '[...]')}"
    if origin is dict:
        return "`key: value` pairs such as {key: value}"
    if isinstance(origin, type) and issubclass(origin, Enum):
        return f"one of {', '.join(origin.__members__)}"
    return _ONE.get(origin, "a value")


def _first_that_fits(value: Any, members: tuple[Any, ...], text: str | None) -> Any:
    for member in sorted(members, key=lambda member: member is str):
        try:
            return convert(value, member, text)
        except NotAcceptedError:
            continue
    raise NotAcceptedError


def _sequence(value: Any, hint: Any, kind: type) -> Any:
    if not isinstance(value, (list, tuple)):
        raise NotAcceptedError
    items = get_args(hint) or (Any,)
    if kind is list or len(items) == 1 or items[-1] is Ellipsis:  # Meta annotates any length as tuple[float]
        items = items[:1] * len(value)
    if len(items) != len(value):
        raise NotAcceptedError
    return kind(convert(element, item) for element, item in zip(value, items, strict=True))


def _mapping(value: Any, hint: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotAcceptedError
    item = (get_args(hint) or (str, Any))[1]
    return {str(key): convert(element, item) for key, element in value.items()}


def _member(value: Any, kind: type[Enum]) -> Enum:
    for member in kind:
        if value in (member.name, member.value):
            return member
    raise NotAcceptedError


def _whole_number(value: Any, text: str | None) -> int:
    number = _number(value, text)
    if isinstance(value, int):
        return value
    if not math.isfinite(number) or number != int(number):
        raise NotAcceptedError
    return int(number)


def _number(value: Any, text: str | None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise NotAcceptedError
    try:
        return float(value)
    except (ValueError, OverflowError) as err:
        raise NotAcceptedError from err


def _truth(value: Any, text: str | None) -> bool:
    word = str(value).lower()
    if word not in _TRUE + _FALSE:
        raise NotAcceptedError
    return word in _TRUE


def _text(value: Any, text: str | None) -> str:
    if isinstance(value, str) or (value is None and text == ""):
        return value or ""
    if value is None or isinstance(value, (list, tuple, dict)):
        raise NotAcceptedError
    return str(value) if text is None else text


def _nothing(value: Any, text: str | None) -> None:
    if value is not None:
        raise NotAcceptedError


_SCALARS: dict[Any, Callable[[Any, str | None], Any]] = {
    int: _whole_number,
    float: _number,
    bool: _truth,
    str: _text,
    type(None): _nothing,
}
