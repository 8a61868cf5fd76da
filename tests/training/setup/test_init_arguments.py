"""Arguments of a trainer's constructor, as a checkpoint stores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.training.setup.init_arguments import bound_arguments, with_added


class _Example:
    def __init__(self, plans: dict, fold: int = 0, *rest: Any, width: int = 32, **others: Any) -> None: ...


def test_bound_arguments_have_defaults_and_merged_keywords() -> None:
    named = bound_arguments(_Example.__init__, ({"a": 1},), {"depth": 3})
    assert named == {"plans": {"a": 1}, "fold": 0, "width": 32, "depth": 3}


def test_call_that_does_not_fit_is_left_to_the_constructor() -> None:
    assert bound_arguments(_Example.__init__, (), {}) == {}


def test_added_arguments_are_plain_and_common_ones_untouched() -> None:
    marker = object()
    stored = with_added({"device": marker}, {"device": None, "path": Path("a/b"), "sizes": (1, [2.5])}, "T")
    assert stored == {"device": marker, "path": "a/b", "sizes": (1, [2.5])}


def test_added_argument_that_is_no_data_is_refused() -> None:
    with pytest.raises(UsageError, match=r"T\(hook=\.\.\.\) is a builtin_function_or_method.*plain data"):
        with_added({}, {"hook": len}, "T")
