"""The flags of a console command as plain data, taken from its parser at the moment when it would parse.

Imports nothing but the standard library, so that it runs under upstream's interpreter and under this project's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
from collections.abc import Iterator
from typing import Any
from unittest import mock


class ParserSeen(Exception):
    """Carries the parser out of a command that was about to parse its words."""


def stop(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
    raise ParserSeen(parser)


@contextlib.contextmanager
def commands_that_stop() -> Iterator[None]:
    parsing = ("parse_args", "parse_known_args", "parse_intermixed_args")
    with mock.patch.multiple(argparse.ArgumentParser, **dict.fromkeys(parsing, stop)):
        yield


def parser_of(entry: str) -> argparse.ArgumentParser:
    """The parser of a console script, given as `module:function`."""
    module, function = entry.split(":")
    try:
        with commands_that_stop(), contextlib.redirect_stdout(io.StringIO()):
            getattr(importlib.import_module(module), function)()
    except ParserSeen as seen:
        return seen.args[0]
    raise RuntimeError(f"{entry} parses no words")


def describe_action(action: argparse.Action) -> dict[str, Any]:
    return {
        "flags": action.option_strings or [action.dest],
        "nargs": "flag" if action.nargs == 0 else action.nargs,
        "type": getattr(action.type, "__name__", None),
        "default": list(action.default) if isinstance(action.default, tuple) else action.default,
        "required": action.required,
        "choices": action.choices,
    }


def describe_flags(parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    return [describe_action(action) for action in parser._actions if action.dest != "help"]
