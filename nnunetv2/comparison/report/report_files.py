"""Write the report of a comparison into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.comparison.report.case_pictures import CasePicture
from nnunetv2.comparison.report.csv_files import csv_texts
from nnunetv2.comparison.report.html_page import html_report
from nnunetv2.comparison.report.json_files import json_texts
from nnunetv2.comparison.report.latex import latex_table
from nnunetv2.comparison.report.markdown import markdown_report
from nnunetv2.comparison.results import Comparison

REPORT = "report.html"


def write_report(comparison: Comparison, folder: Path, overlays: Sequence[CasePicture] = ()) -> Path:
    """Write all files of a comparison atomically, report.html last.

    All texts are rendered before the first file is written. They depend on the arguments only: no date, no path.

    Args:
        folder: created if missing; files of an earlier report are replaced.
        overlays: pictures of cases, see `worst_case_pictures`.

    Returns:
        The path of report.html.
    """
    texts = report_texts(comparison, overlays)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with replace_when_complete(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return folder / REPORT


def report_texts(comparison: Comparison, overlays: Sequence[CasePicture] = ()) -> dict[str, str]:
    """Content of each file by name, report.html last."""
    return {
        **csv_texts(comparison),
        **json_texts(comparison),
        "report.md": markdown_report(comparison),
        "table.tex": latex_table(comparison),
        REPORT: html_report(comparison, overlays),
    }
