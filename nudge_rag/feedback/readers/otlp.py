"""The JSON of OpenTelemetry's protocol (OTLP): spans within resources and scopes, attributes as lists of keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nudge_rag.feedback.reading import ROW_ERRORS, RowLog
from nudge_rag.feedback.records import Numbered, loaded

__all__ = ["otlp_mapping", "unwrapped_spans"]


# Each holds a list of the next; the last one a list of spans.
WRAPPERS = ("resourceSpans", "scopeSpans", "spans")


def unwrapped_spans(records: Iterator[Numbered], log: RowLog) -> Iterator[Numbered]:
    """Yield the spans of records, each of which may be a span or, as in files of an OTLP exporter, hold several."""
    for source, line, row in records:
        try:
            spans = list(_spans(row))
        except ROW_ERRORS as error:
            log.bad(line, str(error), type(error), source)
            continue
        for span in spans:
            yield source, line, span


def otlp_mapping(entries: list[Any]) -> dict[str, Any]:
    """Return ``[{"key": "k", "value": {"stringValue": "v"}}]`` as ``{"k": "v"}``.

    Example:
        >>> otlp_mapping([{"key": "k", "value": {"arrayValue": {"values": [{"intValue": "5"}]}}}])
        {'k': [5]}
    """
    return {
        str(entry["key"]): _value(entry.get("value"))
        for entry in entries
        if isinstance(entry, Mapping) and "key" in entry
    }


def _spans(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    wrapper = next((name for name in WRAPPERS if name in row), None)
    if wrapper is None:
        yield row
        return
    inner = loaded(row[wrapper])
    if not isinstance(inner, list):
        raise TypeError(f"{wrapper} must be a list, got {inner!r:.100}")
    for entry in inner:
        if not isinstance(entry, Mapping):
            raise TypeError(f"an entry of {wrapper} must be an object, got {entry!r:.100}")
        yield from _spans(entry)


def _value(value: Any) -> Any:
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    kind, content = next(iter(value.items()))
    if kind in ("arrayValue", "kvlistValue"):
        values = content.get("values") if isinstance(content, Mapping) else None
        values = values if isinstance(values, list) else []
        return [_value(entry) for entry in values] if kind == "arrayValue" else otlp_mapping(values)
    return int(content) if kind == "intValue" else content
