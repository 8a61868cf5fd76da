"""Letter, colour and marker of each method, the same in every figure and table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Distinguishable with any colour vision. Source: Paul Tol, "Colour schemes", 2021: muted, with two colours changed for
# more contrast on white, and dark instead of pale grey.
_METHOD_COLOURS = (
    "#332288", "#CC6677", "#117733", "#DDAA33", "#5BB3D8", "#882255", "#44AA99", "#999933", "#AA4499", "#555555",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")

# Strong on grey images and distinct from the methods. Source: Okabe and Ito, "Color universal design", 2008.
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")

BETTER_COLOUR, WORSE_COLOUR, MIXED_COLOUR, NEUTRAL_COLOUR = "#2B6CB0", "#C05621", "#8A3F86", "#E8EAED"
INK, FAINT_INK = "#1F2933", "#6B7785"


@dataclass(frozen=True)
class MethodStyle:
    """Appearance of a method."""

    name: str
    code: str
    """short label where names do not fit: A, B, ..., Z, AA, ..."""
    colour: str
    """#RRGGBB"""
    marker: str
    """matplotlib marker"""

    @property
    def ink(self) -> str:
        """Text colour on the method's colour."""
        return ink_on(self.colour)


def method_styles(methods: Sequence[str]) -> dict[str, MethodStyle]:
    """Assign a style to each method; from the eleventh on, colours repeat with other markers."""
    return {
        name: MethodStyle(
            name,
            _letters(position),
            _METHOD_COLOURS[position % len(_METHOD_COLOURS)],
            _MARKERS[(position + position // len(_METHOD_COLOURS)) % len(_MARKERS)],
        )
        for position, name in enumerate(methods)
    }


def ink_on(colour: str, opacity: float = 1.0) -> str:
    """Text colour, white or dark, on a colour #RRGGBB blended with white at the given opacity.

    Source: relative luminance of WCAG 2.1; dark is used where it has more contrast than white.
    """
    channels = [1 - opacity * (1 - int(colour[place : place + 2], 16) / 255) for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#FFFFFF" if luminance < 0.3 else INK


def class_colour(position: int) -> str:
    """Colour #RRGGBB of a class by its index; repeats after the seventh."""
    return CLASS_COLOURS[position % len(CLASS_COLOURS)]


def _letters(position: int) -> str:
    letters = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
