"""Planted comparisons that several tests look at; none of them changes one."""

from __future__ import annotations

import pytest

from nnunetv2.comparison.results import Comparison
from tests.comparison.report.planted import planted


@pytest.fixture(scope="session")
def five() -> Comparison:
    """Five methods, three seeds, thirty cases, three classes."""
    return planted()


@pytest.fixture(scope="session")
def smallest() -> Comparison:
    """Two methods, one seed, two cases, one class; nothing else is known."""
    return planted(2, 1, 2, ("nucleus",), metrics=("Dice", "HD95"), is_known=False)
