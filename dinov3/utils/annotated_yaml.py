"""Formats settings as annotated YAML: one line per setting, with comments in a separate column."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from dinov3.utils.config_layers import default_layer, plain_config, section_of
from dinov3.utils.config_sources import Source
from dinov3.utils.settings_help import field_docstrings

WIDTH = 120  # of a template's lines
_GAP = 2  # spaces before a comment


def config_template(schema: type) -> str:
    """Formats every setting with its default and the docstring of its field; loading it changes nothing."""
    comments: dict[str, str] = {}
    _collect_docstrings(schema, "", comments)
    return annotated_yaml(default_layer(schema), comments)


def config_with_sources(config: Any, sources: Mapping[str, Source], remarks: Mapping[str, str] | None = None) -> str:
    """Formats all values of a configuration object, each with its source; loading it gives an equal object.

    Args:
        config: configuration from `load_with_sources`.
        sources: sources from `load_with_sources`.
        remarks: notes to append to the sources of some settings, by dotted name.
    """
    remarks = remarks or {}
    comments = {key: "; ".join(filter(None, (source.place, remarks.get(key)))) for key, source in sources.items()}
    return annotated_yaml(plain_config(config), comments, width=None)


def annotated_yaml(values: Mapping[str, Any], comments: Mapping[str, str], width: int | None = WIDTH) -> str:
    """Formats values as block YAML, sections first, with comments on the right.

    Args:
        values: plain values, nested like the sections.
        comments: comments on settings and sections, by dotted name.
        width: maximum line length; longer comments are wrapped. None: no wrapping.
    """
    rows: list[tuple[str, str]] = []
    _collect_rows(values, comments, "", rows)
    column = max((len(text) for text, _ in rows), default=0) + _GAP
    lines = []
    for text, comment in rows:
        room = len(comment) + 1 if width is None else width - column - len("# ")
        first, *more = textwrap.wrap(comment, room, break_on_hyphens=False) or [""]
        lines.append(f"{text:<{column}}# {first}" if first else text)
        lines += [f"{'':<{column}}# {line}" for line in more]
    return "\n".join(lines) + "\n"


def _collect_rows(
    values: Mapping[str, Any], comments: Mapping[str, str], prefix: str, rows: list[tuple[str, str]]
) -> None:
    indent = "  " * prefix.count(".")
    is_section = {name: isinstance(value, dict) and bool(value) for name, value in values.items()}
    for name in sorted(values, key=lambda name: not is_section[name]):
        key = f"{prefix}{name}"
        if is_section[name]:
            if rows and not prefix:
                rows.append(("", ""))
            rows.append((f"{indent}{name}:", comments.get(key, "")))
            _collect_rows(values[name], comments, f"{key}.", rows)
        else:
            if not prefix and any(is_section.values()) and rows[-1][0].startswith(" "):
                rows.append(("", ""))
            rows.append((f"{indent}{name}: {_scalar(values[name])}", comments.get(key, "")))


def _scalar(value: Any) -> str:
    """Formats a value in one line such that it is read back unchanged."""
    import yaml
    from omegaconf import OmegaConf

    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("...\n").strip()
    is_read_back = OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"] == value
    return text if is_read_back else json.dumps(value)


def _collect_docstrings(schema: type, prefix: str, comments: dict[str, str]) -> None:
    hints, texts = get_type_hints(schema), field_docstrings(schema)
    for field in fields(schema):
        key, section = f"{prefix}{field.name}", section_of(hints[field.name])
        if section is None:
            comments[key] = texts.get(field.name, "")
        else:
            comments[key] = " ".join((inspect.getdoc(section) or "").split("\n\n")[0].split())
            _collect_docstrings(section, f"{key}.", comments)
