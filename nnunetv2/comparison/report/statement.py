"""One thing that is said: a sentence, or the beginning of one that goes on in several ways."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statement:
    """What is said of several methods at once; lists show it as such, running text as one sentence."""

    lead: str
    """whole sentences if there are no items"""
    items: tuple[str, ...] = ()
    """each ends the lead"""
    ending: str = ""
    """whole sentences that follow"""

    def as_sentence(self) -> str:
        """The statement as running text."""
        if not self.items:
            return " ".join(part for part in (self.lead, self.ending) if part)
        return " ".join(part for part in (f"{self.lead} {'; '.join(self.items)}.", self.ending) if part)
