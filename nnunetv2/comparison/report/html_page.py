"""The report as one self-contained HTML file, without network access or scripts."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2.comparison.report.case_pictures import CasePicture
from nnunetv2.comparison.report.definitions import definitions, package_versions
from nnunetv2.comparison.report.failures import failure_tables
from nnunetv2.comparison.report.figures.gallery import draw_all
from nnunetv2.comparison.report.pair_tables import pair_tables
from nnunetv2.comparison.report.palette import MethodStyle, class_colour, method_styles
from nnunetv2.comparison.report.reader_table import reader_table
from nnunetv2.comparison.report.score_tables import class_tables, methods_table
from nnunetv2.comparison.report.sheet_tables import (
    comparability_table,
    compute_table,
    detection_table,
    rank_tables,
    values_of,
)
from nnunetv2.comparison.report.verdict import verdict_in_words
from nnunetv2.comparison.results import NOT_RECORDED, Comparison

if TYPE_CHECKING:
    from markupsafe import Markup

_TEMPLATE, _STYLE = "report.html", "report.css"
_TOGETHER = re.compile(r"(?<=\bp) (?=[<=])|(?<=[<=]) (?=[\d])|(?<=\d) (?=%|mm\b)|(?<=%) (?=CI\b)")
_BREAKS_AFTER = re.compile(r"_+(?=[^_])")


def html_report(comparison: Comparison, pictures: Sequence[CasePicture] = ()) -> str:
    """Render report.html."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["class_colour"] = class_colour
    environment.filters["breakable"] = breakable
    styles = method_styles(comparison.scores.methods)
    environment.filters["with_methods"] = lambda text: with_methods_marked(text, styles)
    equalities = comparison.comparability.equalities
    return environment.get_template(_TEMPLATE).render(
        css=(folder / _STYLE).read_text(encoding="utf-8"),
        columns_for=_columns_for,
        comparison=comparison,
        styles=styles,
        verdict=verdict_in_words(comparison),
        broken=[(equality, values_of(equality)) for equality in comparison.comparability.broken],
        unrecorded=sum(equality.state == NOT_RECORDED for equality in equalities),
        methods=methods_table(comparison),
        classes=class_tables(comparison),
        reader=reader_table(comparison),
        drawings=draw_all(comparison, styles),
        pictures=pictures,
        failures=failure_tables(comparison),
        pairs=pair_tables(comparison),
        ranks=rank_tables(comparison),
        detection=detection_table(comparison),
        compute=compute_table(comparison),
        comparability=comparability_table(comparison),
        definitions=list(definitions(comparison.settings, comparison.scores)),
        versions=list(package_versions()),
    )


def _columns_for(num_panels: int, most: int) -> int:
    """Columns for a grid with the fewest rows of at most `most` columns, filled evenly."""
    rows = -(-num_panels // most)
    return -(-num_panels // rows)


def _data_uri(content: str | bytes, kind: str) -> str:
    """Embed content as a data URI."""
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(raw).decode('ascii')}"


def breakable(text: str) -> Markup:
    """Escape text, allowing line breaks after underscores but not within `p = 0.012`, `95 % CI` or `2 mm`."""
    from markupsafe import Markup, escape

    together = _TOGETHER.sub("\N{NO-BREAK SPACE}", text)
    return Markup(_BREAKS_AFTER.sub(lambda found: f"{found.group()}<wbr>", str(escape(together))))


def with_methods_marked(text: str, styles: Mapping[str, MethodStyle]) -> Markup:
    """Escape text and decorate the method names in it with their letters and colours."""
    from markupsafe import Markup

    # Longest names first: one may be the beginning of another.
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
