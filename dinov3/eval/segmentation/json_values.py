"""Numbers as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def without_nonfinite(value: Any) -> Any:
    """The same, at any depth, with None in place of numbers that JSON has no word for: nan and infinity."""
    if isinstance(value, Mapping):
        return {key: without_nonfinite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nonfinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
