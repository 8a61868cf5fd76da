"""Formats the settings of a dataclass for `--help`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import fields
from typing import Any, get_type_hints

from dinov3.utils.config_layers import default_layer, section_of


def settings_help(schema: type, width: int = 100) -> str:
    """Formats one paragraph per setting: `key=default`, followed by the docstring below the field.

    Sections follow the settings of their level, under the docstring of their class.

    Args:
        width: maximum line length.
    """
    return "\n".join(_section_lines(schema, "", width))


def field_docstrings(schema: type) -> dict[str, str]:
    """Returns the docstring below each field of a dataclass, in one line, including inherited fields."""
    texts: dict[str, str] = {}
    for kind in reversed(schema.__mro__[:-1]):
        if not is_written(kind):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
        for statement, below in zip(body, body[1:], strict=False):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(statement, ast.AnnAssign) and is_text:
                texts[statement.target.id] = " ".join(str(below.value.value).split())
    return texts


def is_written(kind: type) -> bool:
    """True if a class is defined in a file; classes composed at run time use the docstrings of their bases."""
    try:
        inspect.getsource(kind)
    except (OSError, TypeError):
        return False
    return True


def _section_lines(schema: type, prefix: str, width: int) -> list[str]:
    hints, texts, defaults = get_type_hints(schema), field_docstrings(schema), default_layer(schema)
    lines, sections = [], []
    for field in fields(schema):
        section = section_of(hints[field.name])
        if section is not None:
            sections.append((section, f"{prefix}{field.name}."))
            continue
        lines.append(f"  {prefix}{field.name}={_as_word(defaults.get(field.name))}")
        lines += textwrap.wrap(texts.get(field.name, ""), width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    for section, inner in sections:
        title = (inspect.getdoc(section) or "").split("\n\n")[0].replace("\n", " ")
        lines += ["", *textwrap.wrap(f"{inner}*  {title}", width), *_section_lines(section, inner, width)]
    return lines


def _as_word(value: Any) -> str:
    """Formats a default as on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_as_word, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
