"""Names in HTML: where they may break, and the letter and colour of a method wherever a sentence speaks of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnunetv2.comparison.report.palette import MethodStyle

if TYPE_CHECKING:
    from markupsafe import Markup

_TOGETHER = re.compile(r"(?<=\bp) (?=[<=])|(?<=[<=]) (?=[\d])|(?<=\d) (?=%|mm\b)|(?<=%) (?=CI\b)")
_BREAKS_AFTER = re.compile(r"_+(?=[^_])")


def breakable(text: str) -> Markup:
    """Escaped text that may break after underscores, but not within `p = 0.012`, `95 % CI` or `2 mm`."""
    from markupsafe import Markup, escape

    together = _TOGETHER.sub("\N{NO-BREAK SPACE}", text)
    return Markup(_BREAKS_AFTER.sub(lambda found: f"{found.group()}<wbr>", str(escape(together))))


def with_methods_marked(text: str, styles: Mapping[str, MethodStyle]) -> Markup:
    """Escaped text in which the names of methods carry their letters and colours."""
    from markupsafe import Markup

    longest_first = sorted(styles, key=lambda name: (-len(name), name))
    names = re.compile(rf"(?<![\w-])({'|'.join(re.escape(name) for name in longest_first)})(?![\w-])")
    parts = names.split(text)  # every second part is a name
    marked = [_marked(styles[part]) if place % 2 else breakable(part) for place, part in enumerate(parts)]
    return Markup("").join(marked)


def _marked(style: MethodStyle) -> Markup:
    from markupsafe import Markup

    letter = Markup('<span class="chip" style="background:{};color:{}">{}</span>').format(
        style.colour, style.ink, style.code
    )
    return Markup('<span class="named">{}\N{NO-BREAK SPACE}{}</span>').format(letter, breakable(style.name))
