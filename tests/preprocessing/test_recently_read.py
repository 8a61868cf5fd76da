"""What was read is remembered up to a limit, and the file that was not needed for longest is forgotten first."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.preprocessing.recently_read import RecentlyRead


def test_the_oldest_is_forgotten_when_the_sum_exceeds_the_limit(tmp_path: Path) -> None:
    for name, size in (("a", 3), ("b", 4), ("c", 5), ("large", 11)):
        (tmp_path / name).write_bytes(b"x" * size)
    memory, read = RecentlyRead(10, lambda state: state.st_size), []
    for name in ("a", "b", "a", "c", "a", "b", "large", "large", "b"):
        assert memory.get(str(tmp_path / name), lambda path: read.append(Path(path).name) or len(read)) > 0
    # "c" exceeds the limit with "a" and "b", of which "b" was not needed for longer.
    assert read == ["a", "b", "c", "b", "large", "large", "b"]
