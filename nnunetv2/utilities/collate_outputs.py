"""Collate the step outputs of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dinov3.utils.host_copies import LateScalar


def collate_outputs(outputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge dictionaries with the same keys: scalars become a list, lists are chained, arrays are stacked.

    Raises:
        TypeError: an entry is not a scalar, list or array.
    """
    return {key: _collate(key, [output[key] for output in outputs]) for key in outputs[0]}


def _collate(key: str, values: list[Any]) -> Any:
    first = values[0]
    if np.isscalar(first):
        return values
    if isinstance(first, (np.ndarray, LateScalar)):
        return np.stack(values)
    if isinstance(first, list):
        return [entry for value in values for entry in value]
    raise TypeError(f"output {key!r} is a {type(first).__name__}; a step may return scalars, numpy arrays and lists")
