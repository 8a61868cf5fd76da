"""How all figures look, and how they become SVG that is the same every time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nnunetv2.comparison.report.palette import FAINT_INK, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches, the width of the text on A4
TALLEST = 8.6  # inches, what fits on a page below a title
LINE = 0.14  # inches, one line of small text
_WORDS = re.compile(r"[^ _]*[ _]+|[^ _]+")
_PARTS = re.compile(r".[^A-Z]*")  # of a word: each begins with a capital letter

_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "text.parse_math": False,  # names may hold dollar signs
    "text.color": INK,
    "axes.edgecolor": FAINT_INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#DDE1E6",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "nnUNetv2_compare",
    "svg.id": None,
}


@contextmanager
def report_style() -> Iterator[None]:
    """Within it figures look alike, whatever the user's matplotlibrc says; drawing and saving belong inside."""
    import matplotlib.style

    with matplotlib.style.context(["default", _SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # names are in the tables, too
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """A figure of its own, unknown to pyplot; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg_of(figure: Figure) -> str:
    """The figure as an SVG document without date, program or random identifiers."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return text.getvalue()


def wrapped(name: str, width: int = 26) -> str:
    """Breaks a long name into as few lines as `width` characters allow, about equally long.

    Lines end after spaces or underscores; within words only where these are too long.
    """
    fewest = len(_lines(name, width))
    longest_word = max((len(word.rstrip()) for word in _words(name, width)), default=1)
    widths = range(max(longest_word, -(-len(name) // fewest)), width + 1)
    narrowest = next(each for each in widths if len(_lines(name, each)) <= fewest)
    return "\n".join(_lines(name, narrowest))


def _lines(name: str, width: int) -> list[str]:
    lines = [""]
    for word in _words(name, width):
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def _words(name: str, width: int) -> Iterator[str]:
    """Words with the spaces or underscores behind them; longer ones in parts of at most `width` characters."""
    for word in _WORDS.findall(name):
        if len(word.rstrip()) <= width:
            yield word
        else:
            for part in _PARTS.findall(word):
                yield from (part[start : start + width] for start in range(0, len(part), width))


def height_of(labels: list[str], smallest: float) -> float:
    """Inches that a row needs so that none of the labels touches the next."""
    return max(smallest, LINE * (1 + max((label.count("\n") for label in labels), default=0)) + 0.06)


def label_rows(axes: Axes, labels: list[str]) -> None:
    """One row per label, the first on top."""
    axes.set_yticks(range(len(labels)), labels, linespacing=1.25)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
