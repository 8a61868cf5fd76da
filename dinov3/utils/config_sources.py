"""Sources of settings: defaults, a line of the YAML file, or a word of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dinov3.utils.config_layers import dotted_items
from dinov3.utils.yaml_text import read_yaml_text


class Source(NamedTuple):
    """Origin of one value."""

    rank: int
    """0: default, 1: file, 2: word; higher ranks take precedence."""
    place: str
    """Human-readable location, for example `my.yaml:3`."""


DEFAULT = Source(0, "default")
FOLLOWS = "follows from other settings"


class Written(NamedTuple):
    """A key as it stands in a YAML file."""

    line: int
    """Line of the key, from 1."""
    text: str | None
    """Original text of the value; None if it is a list or a section."""


def sources_of_file(path: Path, layer: Mapping[str, Any]) -> dict[str, Source]:
    """Returns the source of each setting of a YAML file, by dotted name.

    Args:
        layer: settings in the file.
    """
    written = written_keys(path)
    # Keys that are not strings, such as `true`, have no line.
    places = {key: f"{path}:{written[key].line}" if key in written else str(path) for key in dotted_items(layer)}
    return {key: Source(1, place) for key, place in places.items()}


def sources_of_words(words: Sequence[str], layers: Sequence[Mapping[str, Any]]) -> dict[str, Source]:
    """Returns the source of each setting of `key=value` words, by dotted name; the last word of a setting counts.

    Args:
        layers: settings of each word.
    """
    sources = {}
    for word, layer in zip(words, layers, strict=True):
        sources |= dict.fromkeys(dotted_items(layer), Source(2, f"command line: {word}"))
    return sources


def written_keys(path: Path) -> dict[str, Written]:
    """Maps the dotted name of each key of a YAML file, sections and settings, to its place and text."""
    import yaml

    return dict(_written(yaml.compose(read_yaml_text(path), Loader=yaml.SafeLoader)))


def _written(node: Any, prefix: str = "") -> Iterator[tuple[str, Written]]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            text = value.value if isinstance(value, yaml.ScalarNode) else None
            yield f"{prefix}{key.value}", Written(key.start_mark.line + 1, text)
            yield from _written(value, f"{prefix}{key.value}.")
