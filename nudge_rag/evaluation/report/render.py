"""From a document to one HTML file, and its numbers as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nudge_rag.common.text import printable, write_text
from nudge_rag.errors import MissingPackageError
from nudge_rag.evaluation.report.document import Document

__all__ = ["render_document", "write_report"]


def render_document(document: Document) -> str:
    """Return the page: every text is escaped, in one direction, and without control characters.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    return str(_template().render(document=document))


def write_report(document: Document, path: str | Path, numbers: Mapping[str, Any]) -> Path:
    """Write the page to ``path``, and ``numbers`` as JSON to the same name with ``.json``.

    Returns:
        The path of the page.

    Raises:
        MissingPackageError: Jinja2 or matplotlib is not installed.
        ValueError: ``path`` does not end with .html or .htm.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an .html file, got {str(path)!r}")
    page = render_document(document)
    beside = json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)
    write_text(target.with_suffix(".json"), beside)
    return target


@cache
def _template() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingPackageError("a report", "nudge-rag[report]") from error

    def clean(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("nudge_rag.evaluation.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The drawings alone are not escaped: we made them, and matplotlib escapes what they say.
    environment.filters["drawing"] = Markup
    return environment.get_template("report.html.j2")
