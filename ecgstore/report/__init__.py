"""The report: one self-contained page about a split, made from the tables alone."""

from ecgstore.report.build import ReportResult, report

__all__ = ["ReportResult", "report"]
