"""The report of a comparison: machine-readable tables, LaTeX, and one self-contained HTML file."""

from nnunetv2.comparison.report.report_files import write_report

__all__ = ["write_report"]
