"""A statement of the report: a sentence, or a lead with several items that complete it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statement:
    """Statement about one or more methods, rendered as a list or as running text."""

    lead: str
    """complete sentences if there are no items"""
    items: tuple[str, ...] = ()
    """each completes the lead"""
    ending: str = ""
    """complete sentences after the items"""

    def as_sentence(self) -> str:
        """Render as running text."""
        if not self.items:
            return " ".join(part for part in (self.lead, self.ending) if part)
        return " ".join(part for part in (f"{self.lead} {'; '.join(self.items)}.", self.ending) if part)
