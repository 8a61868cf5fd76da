"""Numbers as text."""

from __future__ import annotations

import pytest

from nnunetv2.comparison.report.formatting import amount, bounds, listed, p_equals, p_value, plain_number, with_unit
from nnunetv2.comparison.results import Interval


@pytest.mark.parametrize(
    ("value", "signed", "expected"),
    [
        (0.1234, False, "0.123"),
        (0.1234, True, "+0.123"),
        (-0.1234, True, "−0.123"),
        (-0.0001, True, "0.000"),
        (0.0, True, "0.000"),
        (None, False, "–"),
        (float("nan"), True, "–"),
        (float("inf"), False, "–"),
    ],
)
def test_plain_number(value: float | None, signed: bool, expected: str) -> None:
    assert plain_number(value, 3, signed=signed) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.0123, "0.012"), (0.0009, "< 0.001"), (0.001, "0.001"), (1.0, "1.000"), (None, "–"), (float("nan"), "–")],
)
def test_p_value(p: float | None, expected: str) -> None:
    assert p_value(p) == expected


def test_p_in_sentences() -> None:
    assert (p_equals(0.0123), p_equals(1e-9)) == ("p = 0.012", "p < 0.001")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1234, "0.123"),
        (9.5, "9.5"),
        (12, "12"),
        (562.5, "562"),
        (999.6, "1 k"),
        (31_200_000, "31.2 M"),
        (0, "0"),
        (None, "–"),
    ],
)
def test_amount_has_three_digits(value: float | None, expected: str) -> None:
    assert amount(value) == expected


def test_distances_have_a_unit_and_two_digits() -> None:
    assert with_unit(1.5, "HD95", "mm") == "1.50 mm"
    assert with_unit(1.5, "HD95", "px") == "1.50 px"
    assert with_unit(1.5, "Betti0", "px") == "1.5 pieces"
    assert with_unit(0.5, "Dice", "mm") == "0.500"
    assert bounds(Interval(-1, 2), "HD95", signed=True) == "−1.00 to +2.00"
    assert bounds(Interval(float("nan"), 2), "Dice") == "–"


def test_listed() -> None:
    assert [listed(list("abc")[:length]) for length in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
