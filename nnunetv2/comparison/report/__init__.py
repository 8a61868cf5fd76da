"""The report of a comparison: tables for programs and papers, and one HTML file to read."""

from nnunetv2.comparison.report.report_files import write_report

__all__ = ["write_report"]
