"""The table of faults names a test for each, and every test of the room is in it."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY

FAULTS = REPOSITORY / "tests" / "faults"
TEXT = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
NUM_FAULTS = 42


def test_every_fault_has_a_row() -> None:
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \| [^|]+ \| `", TEXT, re.MULTILINE)]
    assert numbers == list(range(1, NUM_FAULTS + 1))


def test_every_named_file_exists() -> None:
    named = re.findall(r"`((?:tests/[\w/]+/)?test_\w+\.py)`", TEXT)
    assert len(named) > NUM_FAULTS
    missing = [name for name in named if not (REPOSITORY / name if "/" in name else FAULTS / name).is_file()]
    assert missing == []


def test_every_file_of_the_room_is_named() -> None:
    unnamed = [path.name for path in FAULTS.glob("test_*.py") if f"`{path.name}`" not in TEXT]
    assert unnamed == ["test_harness.py"]
