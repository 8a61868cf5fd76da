"""Tables of text that any of the documents can show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    lines: tuple[str, ...]
    """the first is what counts, the rest is smaller print"""
    methods: tuple[str, ...] = ()
    """names that are shown instead of the lines, each with its colour"""
    is_number: bool = False
    is_best: bool = False
    mood: str = ""
    """good, bad, mixed, or open: how a verdict is coloured"""

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is written in the cell."""
        return self.methods or self.lines


@dataclass(frozen=True)
class Table:
    """A titled table; the first cell of a row is its head."""

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
