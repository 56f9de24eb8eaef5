"""A report in one HTML file: no script, no request, readable on a phone, in the dark and by a screen reader."""

from nudge_rag.evaluation.report.comparison import comparison_document
from nudge_rag.evaluation.report.document import Document, Example, Figure, Section, Table
from nudge_rag.evaluation.report.render import render_document, write_report

__all__ = [
    "Document",
    "Example",
    "Figure",
    "Section",
    "Table",
    "comparison_document",
    "render_document",
    "write_report",
]
