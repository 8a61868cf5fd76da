"""The text of `--help` comes from the dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field

from dinov3.utils.settings_help import field_docstrings, settings_help


@dataclass
class Base:
    rate: float = 1e-3
    """How
    fast."""


@dataclass
class Part(Base):
    """A part.

    More about it.
    """

    sizes: list[int] | None = None
    """Of it."""


@dataclass
class Whole:
    part: Part = field(default_factory=Part)
    name: str = "x"
    """A name."""
    other: Part | None = None
    on: bool = True
    sides: list[float] = field(default_factory=lambda: [1.0, 2.5])


def test_docstrings_stand_under_their_fields_also_in_base_classes():
    assert field_docstrings(Part) == {"rate": "How fast.", "sizes": "Of it."}


def test_settings_come_before_sections_with_their_defaults_as_words():
    assert settings_help(Whole).splitlines() == [
        "  name=x",
        "      A name.",
        "  on=true",
        "  sides=[1,2.5]",
        "",
        "part.*  A part.",
        "  part.rate=0.001",
        "      How fast.",
        "  part.sizes=null",
        "      Of it.",
        "",
        "other.*  A part.",
        "  other.rate=0.001",
        "      How fast.",
        "  other.sizes=null",
        "      Of it.",
    ]
