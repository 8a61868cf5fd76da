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


def setting_sources(
    path: Path | None, file_layer: Mapping[str, Any], words: Sequence[str], word_layers: Sequence[Mapping[str, Any]]
) -> dict[str, Source]:
    """Returns the effective source of each non-default setting, by dotted name.

    Args:
        path: the YAML file, if any.
        file_layer: settings in the file.
        words: `key=value` words.
        word_layers: settings of each word.
    """
    lines = {} if path is None else _lines_of(path)
    # Keys that are not strings, such as `true`, have no line.
    places = {key: f"{path}:{lines[key]}" if key in lines else str(path) for key in dotted_items(file_layer)}
    sources = {key: Source(1, place) for key, place in places.items()}
    for word, layer in zip(words, word_layers, strict=True):
        sources |= dict.fromkeys(dotted_items(layer), Source(2, f"command line: {word}"))
    return sources


def _lines_of(path: Path) -> dict[str, int]:
    """Maps each key of a YAML file, sections and settings, to its line, from 1."""
    import yaml

    return dict(_key_lines(yaml.compose(read_yaml_text(path), Loader=yaml.SafeLoader)))


def _key_lines(node: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield f"{prefix}{key.value}", key.start_mark.line + 1
            yield from _key_lines(value, f"{prefix}{key.value}.")
