"""Hits of the search engines as documents."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

__all__ = ["hit_document"]


def hit_document(hit: Any, text_field: str) -> Document:
    """Make a document of a hit of Elasticsearch's or OpenSearch's."""
    source = hit["_source"]
    return Document(id=hit["_id"], page_content=source[text_field], metadata=source.get("metadata") or {})
