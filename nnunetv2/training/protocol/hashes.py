"""Hashes for the comparison of trainings: of plain data, and of sets of cases."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_file import READER

_DIGITS = 6  # significant digits of floats; statistics computed by two programs agree to that many


def content_hash(content: Any) -> str:
    """SHA-256 of plain data as hexadecimal text; ignores the order of keys and digits beyond the sixth."""
    text = json.dumps(rounded(content), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_hash(fingerprint: Mapping[str, Any]) -> str:
    """`content_hash` of a dataset's fingerprint, without the version of the reader that made it."""
    return content_hash({key: value for key, value in fingerprint.items() if key != READER})


def rounded(content: Any) -> Any:
    """Normalises plain data as JSON: tuples become lists, keys become text, floats are rounded to six digits."""
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
    """Describes a set of cases by its size and an order-independent hash."""
    cases = sorted(map(str, identifiers))
    return {"num_cases": len(cases), "sha256": content_hash(cases)}
