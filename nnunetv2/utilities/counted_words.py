"""Numbers with their nouns, for messages."""

from __future__ import annotations


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """`1 case`, `2 cases`; the plural is named where it has no `s` at its end."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
