"""Settings as YAML with comments: what it looks like, and that it is read back as it was."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dinov3.utils.annotated_yaml import annotated_yaml, config_template, config_with_sources
from dinov3.utils.yaml_config import load_config, load_with_sources


@dataclass
class Part:
    """A part.

    More about it.
    """

    rate: float = 1e-5
    """How fast."""
    sides: list[str] = field(default_factory=lambda: ["a", "b"])


@dataclass
class Whole:
    name: str | None = None
    """A name, or nothing: then the parts are counted from left to right, and the longest of them gives its own to the
    whole."""
    part: Part = field(default_factory=Part)
    other: Part | None = None
    """Another one."""


def test_sections_come_first_and_comments_have_a_column_of_their_own():
    values = {"name": None, "part": {"rate": 1e-5, "sides": ["a", "b"]}}
    comments = {"name": "w " * 60, "part": "A part.", "part.rate": "How fast."}
    assert annotated_yaml(values, comments, width=120).splitlines() == [
        "part:            # A part.",
        "  rate: 1.0e-05  # How fast.",
        "  sides: [a, b]",
        "",
        f"name: null       # {' '.join('w' * 51)}",
        f"                 # {' '.join('w' * 9)}",
    ]


def test_the_template_of_a_schema_changes_nothing(tmp_path):
    path = tmp_path / "template.yaml"
    path.write_text(config_template(Whole))
    assert "# A part." in path.read_text()
    assert "# How fast." in path.read_text()
    assert "More about it" not in path.read_text()
    assert load_config(Whole, path) == Whole()


@pytest.mark.parametrize(
    "name", ["a: b", "1e3", "# no comment", "yes", "null", "", "ü 'quoted' \"twice\"", "-", "x" * 200]
)
def test_any_text_is_read_back_as_it_is(tmp_path, name):
    config = Whole(name=name, part=Part(sides=[name, "1e3", "no"]))
    path = tmp_path / "printed.yaml"
    path.write_text(config_with_sources(config, {}))
    assert load_config(Whole, path) == config


def test_sources_and_remarks_stand_behind_the_values():
    config, sources = load_with_sources(Whole, None, ["part.rate=2", "other.rate=3"])
    assert config_with_sources(config, sources, {"part.sides": "unused"}).splitlines() == [
        "part:",
        "  rate: 2.0      # command line: part.rate=2",
        "  sides: [a, b]  # default; unused",
        "",
        "other:",
        "  rate: 3.0      # command line: other.rate=3",
        "  sides: [a, b]  # default",
        "",
        "name: null       # default",
    ]
