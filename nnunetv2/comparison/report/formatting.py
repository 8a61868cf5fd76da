"""Format numbers: fixed decimals per metric, a true minus sign, a dash for unknown values."""

from __future__ import annotations

import math

from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.results import Interval
from nnunetv2.comparison.settings import CompareSettings

UNKNOWN = "–"
_MINUS = "\N{MINUS SIGN}"
_SMALLEST_P = 0.001  # smaller values are written as `< 0.001`
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def digits_of(metric: str) -> int:
    """Decimals of a metric: its own setting, else 3 for a fraction and 2 for a value with a unit."""
    if METRICS[metric].digits is not None:
        return METRICS[metric].digits
    return 2 if METRICS[metric].unit else 3


def plain_number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """Format as 0.912, or as +0.021 with `signed`; values that round to zero have no sign."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{abs(value):.{digits}f}"
    is_zero = float(text) == 0
    if value < 0 and not is_zero:
        return _MINUS + text
    return f"+{text}" if signed and not is_zero else text


def score(value: float | None, metric: str, *, signed: bool = False) -> str:
    """Format a score, or with `signed` a difference of scores, without unit."""
    return plain_number(value, digits_of(metric), signed=signed)


def unit_of(metric: str, length_unit: str) -> str:
    """Unit of a metric; empty for a fraction.

    Args:
        length_unit: that of the scores, `px` where pixels have no size; replaces mm.
    """
    unit = METRICS[metric].unit
    return length_unit if unit == "mm" else unit


def with_unit(value: float | None, metric: str, length_unit: str) -> str:
    """Format a score with its unit, if any; see `unit_of`."""
    return f"{score(value, metric)} {unit_of(metric, length_unit)}".rstrip()


def is_known(interval: Interval | None) -> bool:
    """Whether both ends of an interval are finite."""
    return interval is not None and math.isfinite(interval.low) and math.isfinite(interval.high)


def bounds(interval: Interval | None, metric: str, *, signed: bool = False) -> str:
    """Format an interval as `0.901 to 0.922`."""
    if not is_known(interval):
        return UNKNOWN
    return f"{score(interval.low, metric, signed=signed)} to {score(interval.high, metric, signed=signed)}"


def p_value(p: float | None) -> str:
    """Format as `0.012`, or `< 0.001`."""
    if p is None or not math.isfinite(p):
        return UNKNOWN
    return f"< {_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.3f}"


def p_equals(p: float | None) -> str:
    """Format as `p = 0.012` or `p < 0.001`, for sentences."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def percent(share: float | None) -> str:
    """Format a fraction as percentage: 12 %."""
    return UNKNOWN if share is None or not math.isfinite(share) else f"{100 * share:.0f} %"


def amount(value: float | None) -> str:
    """Format with three significant digits and a prefix: 31.2 M, 1.05 k, 0.123."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for size, prefix in _PREFIXES:
        if float(f"{abs(value):.3g}") >= size:
            return f"{_three_digits(value / size)} {prefix}"
    return _three_digits(value)


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def listed(parts: list[str], conjunction: str = "and") -> str:
    """Join as `a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {conjunction} {parts[-1]}"


def coverage(settings: CompareSettings) -> str:
    """Name of the intervals, for example `95 % CI`."""
    return f"{100 * (1 - settings.alpha):g} % CI"
