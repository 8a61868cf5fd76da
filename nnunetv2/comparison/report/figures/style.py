"""Style of all figures, and their conversion to reproducible SVG."""

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

WIDTH = 7.2  # inches, text width on A4
TALLEST = 8.6  # inches, what fits on a page below a title
LINE = 0.14  # inches, one line of small text
_WORDS = re.compile(r"[^ _]*[ _]+|[^ _]+")
_PARTS = re.compile(r".[^A-Z]*")  # splits CamelCase words before capital letters

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
    """Apply the report's style and suspend the user's matplotlibrc; draw and save figures inside this context."""
    import matplotlib.style

    with matplotlib.style.context(["default", _SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the tables show these names too
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Create a figure outside pyplot's registry; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg_of(figure: Figure) -> str:
    """Render a figure as SVG without date, program or random identifiers."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return text.getvalue()


def wrapped(name: str, width: int = 26) -> str:
    """Break a long name into the fewest lines of `width` characters, of about equal length.

    Lines break after spaces or underscores, and within words only if these exceed `width`.
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
    """Yield words with their trailing spaces or underscores; longer words in parts of at most `width` characters."""
    for word in _WORDS.findall(name):
        if len(word.rstrip()) <= width:
            yield word
        else:
            for part in _PARTS.findall(word):
                yield from (part[start : start + width] for start in range(0, len(part), width))


def height_of(labels: list[str], smallest: float) -> float:
    """Row height in inches that keeps the labels from touching."""
    return max(smallest, LINE * (1 + max((label.count("\n") for label in labels), default=0)) + 0.06)


def label_rows(axes: Axes, labels: list[str]) -> None:
    """Label the rows, the first on top."""
    axes.set_yticks(range(len(labels)), labels, linespacing=1.25)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
