"""Hashes by which trainings are compared: of plain data, and of sets of cases."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

_DIGITS = 6  # of numbers with a fraction; statistics that two programs made agree in as many


def content_hash(content: Any) -> str:
    """SHA-256 of plain data as hexadecimal text; neither the order of keys nor digits beyond the sixth count."""
    text = json.dumps(rounded(content), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def rounded(content: Any) -> Any:
    """Plain data as JSON has it: tuples are lists, keys are text, and numbers with a fraction have six digits."""
    if isinstance(content, dict):
        return {str(key): rounded(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [rounded(value) for value in content]
    if not isinstance(content, float):
        return content
    if not math.isfinite(content):
        return str(content)
    number = float(f"{content:.{_DIGITS}g}")
    return int(number) if number.is_integer() else number


def cases_description(identifiers: Iterable[str]) -> dict[str, Any]:
    """The number of cases, and a hash that is the same for the same cases in any order."""
    cases = sorted(map(str, identifiers))
    return {"num_cases": len(cases), "sha256": content_hash(cases)}
