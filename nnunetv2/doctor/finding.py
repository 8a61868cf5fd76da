"""One result of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    """Works, but slower or not for everything."""
    ERROR = "error"
    """Some command fails."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at, in one or two words.
        text: what was found.
        cure: what to do; empty if nothing needs to be done.
    """

    level: Level
    check: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        """One line of the report."""
        line = f"{self.level.value:7s}  {self.check}: {self.text}"
        return f"{line}; {self.cure}" if self.cure else line


def ok(check: str, text: str) -> Finding:
    return Finding(Level.OK, check, text)


def warning(check: str, text: str, cure: str) -> Finding:
    return Finding(Level.WARNING, check, text, cure)


def error(check: str, text: str, cure: str) -> Finding:
    return Finding(Level.ERROR, check, text, cure)
