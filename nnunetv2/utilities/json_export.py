"""Convert numpy scalars and arrays, and torch devices, to JSON types."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def json_ready(value: Any) -> Any:
    """Convert numpy scalars to Python numbers and arrays to lists, at any depth.

    Containers are copied, numpy integer keys become integers, and a `torch.device` becomes its name. Other values are
    returned unchanged.
    """
    if isinstance(value, dict):
        return {_plain_key(key): json_ready(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [json_ready(entry) for entry in value]
    if isinstance(value, tuple):
        return tuple(json_ready(entry) for entry in value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    torch = sys.modules.get("torch")  # avoids importing torch: if it is not loaded, no value is a device
    if torch is not None and isinstance(value, torch.device):
        return str(value)
    return value


def _plain_key(key: Any) -> Any:
    return key.item() if isinstance(key, np.generic) else key


def recursive_fix_for_json_export(my_dict: dict) -> None:
    """Convert a dictionary to JSON types in place; `json_ready` returns a copy instead."""
    converted = json_ready(my_dict)
    my_dict.clear()
    my_dict.update(converted)


def fix_types_iterable(iterable: Iterable, output_type: Callable[[list], Any]) -> Any:
    """Convert the entries to JSON types and collect them in a container of the given type."""
    return output_type([json_ready(entry) for entry in iterable])
