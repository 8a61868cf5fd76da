"""The injections do what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.faults.injection import flip_bit, largest_file, truncate


def test_flip_bit_changes_one_bit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    position = flip_bit(path, np.random.default_rng(0), start=10, end=20)
    changed = [
        (before ^ after, at)
        for at, (before, after) in enumerate(zip(range(100), path.read_bytes(), strict=True))
        if before != after
    ]
    assert len(changed) == 1
    assert changed[0][1] == position
    assert 10 <= position < 20
    assert changed[0][0].bit_count() == 1


def test_truncate_keeps_the_first_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    truncate(path, 0.3)
    assert path.read_bytes() == b"012"


def test_largest_file_ends_writes(tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(OSError):
        (tmp_path / "large").write_bytes(bytes(2000))
    (tmp_path / "large").write_bytes(bytes(2000))
