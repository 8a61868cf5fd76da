"""What fits a type, and what it becomes."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import pytest

from dinov3.utils.typed_values import NotAcceptedError, convert, describe


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3),
        (1e4, int, 10_000),
        ("12", int, 12),
        (2**70, int, 2**70),
        (3, float, 3.0),
        ("inf", float, math.inf),
        ("1e-3", float, 1e-3),
        (True, bool, True),
        (0, bool, False),
        ("Yes", bool, True),
        ("a", str, "a"),
        (1.5, str, "1.5"),
        (None, type(None), None),
        ("SLOW", Mode, Mode.SLOW),
        ("slow", Mode, Mode.SLOW),
        (Mode.FAST, Mode, Mode.FAST),
        ([1, 2.0], list[int], [1, 2]),
        ((1, 2), list[float], [1.0, 2.0]),
        ([1, 2], tuple[float], (1.0, 2.0)),
        ([1, 2], tuple[float, ...], (1.0, 2.0)),
        ([1, "a"], tuple[int, str], (1, "a")),
        ([1, "a"], list, [1, "a"]),
        ({"a": 1.0}, dict[str, int], {"a": 1}),
        ({1: None}, dict, {"1": None}),
        ({"a": [1]}, Any, {"a": [1]}),
        (3, str | int, 3),
        ("3", str | int, 3),
        ("LAST", str | list[int] | None, "LAST"),
        (None, str | list[int] | None, None),
        ([3], int | list[int] | None, [3]),
    ],
)
def test_what_fits(value, hint, expected):
    converted = convert(value, hint)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1.5, int),
        (True, int),
        (math.inf, int),
        (math.nan, int),
        ("a", int),
        (None, int),
        ([1], int),
        ("fast", float),
        (False, float),
        (2, bool),
        (None, bool),
        (None, str),
        (["a"], str),
        ("", type(None)),
        ("quick", Mode),
        ([], Mode),
        (3, list[int]),
        (["a"], list[int]),
        ("ab", list[str]),
        ([1, 2, 3], tuple[int, int]),
        ([1], dict[str, int]),
        ({"a": "b"}, dict[str, int]),
        ("a", int | list[int] | None),
    ],
)
def test_what_does_not_fit(value, hint):
    with pytest.raises(NotAcceptedError):
        convert(value, hint)


def test_text_keeps_how_a_number_was_written():
    assert convert(7, str, "007") == "007"
    assert convert(True, str | None, "on") == "on"
    assert convert("seven", str, "'seven'") == "seven"
    assert convert(None, str, "") == ""
    assert convert(None, str | None, "") is None


def test_an_annotation_that_no_file_can_fill_is_a_mistake_of_the_program():
    with pytest.raises(TypeError, match="Fields of type .*bytes.* are not supported"):
        convert("a", bytes)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (Mode, "one of FAST, SLOW"),
        (list[str] | None, "a list of words such as [a,b] or null"),
        (tuple[float], "a list of numbers such as [0.5,2]"),
        (list, "a list of values such as [...]"),
        (int | list[int], "a whole number or a list of whole numbers such as [1,2]"),
    ],
)
def test_what_is_accepted_in_words(hint, text):
    assert describe(hint) == text
