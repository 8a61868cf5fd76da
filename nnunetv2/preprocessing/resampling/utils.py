"""Finds the resampling function that plans name."""

from __future__ import annotations

from collections.abc import Callable

from nnunetv2.utilities.class_lookup import find_by_name


def recursive_find_resampling_fn_by_name(resampling_fn: str) -> Callable:
    """Returns the function `resampling_fn` of `nnunetv2.preprocessing.resampling`; `UsageError` if there is none."""
    return find_by_name("resampling function", resampling_fn)
