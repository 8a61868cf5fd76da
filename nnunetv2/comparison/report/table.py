"""Format-independent text tables, rendered by every document type."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    lines: tuple[str, ...]
    """the main line first, the others in smaller print"""
    methods: tuple[str, ...] = ()
    """method names shown instead of the lines, in their colours"""
    is_number: bool = False
    is_best: bool = False
    mood: str = ""
    """colour of a verdict: good, bad, mixed or open"""

    @property
    def texts(self) -> tuple[str, ...]:
        """All text in the cell."""
        return self.methods or self.lines


@dataclass(frozen=True)
class Table:
    """A titled table; the first cell of each row is its header."""

    title: str
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def text_cell(*lines: str, mood: str = "") -> Cell:
    return Cell(lines, mood=mood)


def number_cell(*lines: str, is_best: bool = False) -> Cell:
    return Cell(lines, is_number=True, is_best=is_best)


def method_cell(*methods: str) -> Cell:
    return Cell((), methods=methods)
