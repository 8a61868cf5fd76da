from __future__ import annotations

import json
from pathlib import Path

import pytest

from dinov3.utils.errors import DataError
from dinov3.utils.json_files import MAX_DEPTH, parse_json, read_json


def nested(depth: int) -> bytes:
    """Lists and objects in turn, around a text that looks like structure."""
    pairs = [(b"[", b"]") if level % 2 else (b'{"\\"[": ', b"}") for level in range(depth)]
    return b"".join(start for start, _ in pairs) + b'"]}"' + b"".join(end for _, end in reversed(pairs))


def test_depth_is_limited_exactly() -> None:
    parse_json(nested(MAX_DEPTH), "file")
    for depth in (MAX_DEPTH + 1, 500, 10_000, 300_000):
        with pytest.raises(DataError, match="more than 100 deep"):
            parse_json(nested(depth), "file")


def test_brackets_in_text_are_no_depth() -> None:
    content = ["[" * 1000, '{"' * 1000, "\\" * 1000, [{}] * 1000]
    assert parse_json(json.dumps(content).encode(), "file") == content


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not valid JSON .line 1"),
        (b'{"a": 1,\n}', "not valid JSON .line 2"),
        (b"1" * 5000, "integer of thousands of digits"),
        ('{"a":\n "Größe"}'.encode("cp1252"), "not in UTF-8 .line 2 has the byte 0xf6.*Windows-1252.*iconv"),
        (b"\xff\xfe{", "not in UTF-8"),
    ],
)
def test_what_is_no_json_is_explained(raw: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_json(raw, "file")


def test_size_is_limited_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with open(path, "wb") as file:
        file.truncate(3 * 2**30)  # sparse: takes no space
    with pytest.raises(DataError, match="has 3072 MB; .*another file"):
        read_json(path)
