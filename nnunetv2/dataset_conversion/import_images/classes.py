"""The classes of a dataset, and what `--labels` says about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nnunetv2.errors import UsageError

BACKGROUND, IGNORE = "background", "ignore"

_COLOUR = re.compile(r"#([0-9a-fA-F]{6})")
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_HIGHEST_VALUE = 65535
_FORM = "NAME=#rrggbb, NAME=VALUE or NAME=LOWEST-HIGHEST, several of them separated by commas"


@dataclass(frozen=True)
class Classes:
    """Foreground classes in their order; the labels are 1, 2, ..., and `ignore` is the last."""

    names: tuple[str, ...]
    has_ignore: bool = False

    @property
    def ignore_label(self) -> int:
        return len(self.names) + 1

    @property
    def labels(self) -> dict[str, int]:
        """Label of every class with the background, as in dataset.json."""
        labels = {BACKGROUND: 0} | {name: number for number, name in enumerate(self.names, 1)}
        return labels | ({IGNORE: self.ignore_label} if self.has_ignore else {})

    def with_ignore(self) -> Classes:
        return replace(self, has_ignore=True)


@dataclass(frozen=True)
class Request:
    """One entry of `--labels`."""

    name: str
    colours: tuple[int, ...] = ()
    """0xrrggbb"""
    ranges: tuple[tuple[int, int], ...] = ()
    """lowest and highest value, both included"""
    words: tuple[str, ...] = ()
    """anything else, for layouts that name channels or classes"""


def parse_labels(texts: Sequence[str]) -> tuple[Request, ...]:
    """Parses `artery=#ff0000 vessel=128-255 ignore=#ffffff`.

    Raises:
        UsageError: a name is missing or given twice, or colours and values are mixed.
    """
    requests = tuple(map(_parsed, texts))
    names = [request.name for request in requests]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"--labels names {', '.join(twice)} twice; give a class all its colours or values at once: {_FORM}"
        )
    if any(request.colours for request in requests) and any(request.ranges for request in requests):
        raise UsageError("--labels mixes colours and values; give all classes as #rrggbb, or all as values")
    return requests


def _parsed(text: str) -> Request:
    name, equals, given = text.partition("=")
    if not name or (equals and not given) or name != name.strip():
        raise UsageError(f"--labels {text!r} is not of the form {_FORM}")
    colours, ranges, words = [], [], []
    for part in given.split(",") if equals else ():
        if match := _COLOUR.fullmatch(part):
            colours.append(int(match[1], 16))
        elif match := _RANGE.fullmatch(part):
            low, high = int(match[1]), int(match[2] or match[1])
            if not low <= high <= _HIGHEST_VALUE:
                raise UsageError(f"--labels {text!r}: a range goes from a lower to a higher value, up to 65535")
            ranges.append((low, high))
        elif part.startswith("#") or not part:
            raise UsageError(f"--labels {text!r}: {part!r} is no colour; colours have six digits, like #ff0000")
        else:
            words.append(part)
    return Request(name, tuple(colours), tuple(ranges), tuple(words))


def classes_of(requests: Sequence[Request]) -> Classes:
    """Foreground classes in the order of the requests.

    Raises:
        UsageError: there is none.
    """
    names = tuple(request.name for request in requests if request.name not in (BACKGROUND, IGNORE))
    if not names:
        raise UsageError("--labels names no class besides the background; add one, like vessel=255")
    return Classes(names, any(request.name == IGNORE for request in requests))
