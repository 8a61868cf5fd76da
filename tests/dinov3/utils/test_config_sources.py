"""Every value of a configuration knows where it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from dinov3.utils.config_sources import DEFAULT, FOLLOWS, Source
from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_config import dotted_items, load_config, load_with_sources


@dataclass
class Head:
    width: int = 64
    sizes: list[int] | None = None

    def __post_init__(self) -> None:
        if self.width == 14:
            raise UsageError("head.width=14 is fourteen")


@dataclass
class Settings:
    name: str = "plain"
    half: int = 0
    head: Head = field(default_factory=Head)
    second: Head | None = None
    options: dict[str, Any] = field(default_factory=lambda: {"speed": 1})

    def __post_init__(self) -> None:
        self.half = self.half or self.head.width // 2

    @classmethod
    def check_given(cls, values: Mapping[str, Any], sources: Mapping[str, Source]) -> None:
        if values["head"]["width"] == 13 and sources["head.width"].rank == 2:
            raise UsageError("thirteen was said aloud")


TEXT = """# a comment
name: mine

head:
  sizes: [1,
    2]
  width: 32
options:
  warmup: {first: 3}
  true: yes
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(TEXT)
    return path


def test_a_value_is_a_default_a_line_of_the_file_or_a_word_and_the_last_one_counts(path):
    config, sources = load_with_sources(Settings, path, ["head.width=16", "head.width=8"])
    assert config == Settings("mine", 4, Head(8, [1, 2]), None, {"speed": 1, "warmup": {"first": 3}, "True": True})
    assert sources["name"] == Source(1, f"{path}:2")
    assert sources["head.sizes"] == Source(1, f"{path}:5")
    assert sources["head.width"] == Source(2, "command line: head.width=8")
    assert sources["second"] == sources["options.speed"] == DEFAULT
    assert sources["options.warmup.first"] == Source(1, f"{path}:9")
    assert sources["options.True"] == Source(1, str(path))
    assert dotted_items(config).keys() <= sources.keys()


def test_a_value_that_another_setting_decides_says_so():
    sources = load_with_sources(Settings)[1]
    assert sources["half"] == Source(0, FOLLOWS)
    assert sources["head.width"] == DEFAULT
    assert load_with_sources(Settings, None, ["half=3"])[1]["half"].place == "command line: half=3"


def test_the_schema_sees_what_was_given_and_where(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("head: {width: 13}\n")
    assert load_config(Settings, path).head.width == 13
    with pytest.raises(UsageError, match="thirteen was said aloud"):
        load_config(Settings, path, ["head.width=13"])


def test_a_value_that_a_check_rejects_is_reported_with_its_line(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("name: mine\nhead:\n  width: 14\n")
    with pytest.raises(UsageError, match=re.escape(f"{path}:3: head.width=14 is fourteen")):
        load_config(Settings, path)
    with pytest.raises(UsageError, match="^head.width=14 is fourteen"):
        load_config(Settings, path, ["head.width=14"])
