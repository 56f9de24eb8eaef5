"""What readers of traces share: names in several spellings, documents, votes, and which retrieval is the outermost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from nudge_rag.feedback.log import Feedback, Retrieval, ShownNode
from nudge_rag.feedback.reading import checked_id, checked_text
from nudge_rag.feedback.records import loaded
from nudge_rag.feedback.tables import is_missing

__all__ = ["documents_shown", "optional_text", "outer_of", "outermost", "pick", "query_text", "retrievals_of", "vote"]

UP = {"relevant", "thumbs_up", "thumbs up", "up", "positive", "good", "correct", "yes", "true", "like", "helpful"}
UP |= {"\N{THUMBS UP SIGN}"}
DOWN = {"irrelevant", "not relevant", "not_relevant", "unrelated", "thumbs_down", "thumbs down", "down", "negative"}
DOWN |= {"bad", "incorrect", "no", "false", "dislike", "unhelpful", "\N{THUMBS DOWN SIGN}"}
QUERY_KEYS = ("query", "question", "input", "user_input", "prompt", "text")
TEXT_KEYS = ("page_content", "content", "text")


def pick(row: Mapping[str, Any], *names: str) -> Any:
    """Return the first value that is there and not empty."""
    for name in names:
        value = row.get(name)
        if not is_missing(value) and not (isinstance(value, str) and not value):
            return value
    return None


def optional_text(value: Any, what: str) -> str | None:
    """Return the name of a user, a session or a span as a text; None if it is missing.

    Raises:
        ValueError: it holds what is no text.
    """
    return None if is_missing(value) or not str(value).strip() else checked_text(str(value), what)


def query_text(value: Any) -> str:
    """Return the question among the inputs of a retriever's run.

    Raises:
        ValueError: there is none, or no telling which of several it is.
    """
    value = loaded(value)
    if isinstance(value, str) and value.strip():
        return checked_text(value, "query")
    if isinstance(value, Mapping):
        named = [value[key] for key in QUERY_KEYS if isinstance(value.get(key), str)]
        texts = named or [text for text in value.values() if isinstance(text, str)]
        if len(texts) == 1 or named:
            return checked_text(texts[0], "query")
    raise ValueError(f"no text of a query in {value!r:.200}")


def documents_shown(value: Any, node_key: str | None = None) -> tuple[ShownNode, ...]:
    """Return the documents of a retriever's output: a list, or one under ``documents`` or ``output``.

    Args:
        value: the output, or its JSON.
        node_key: key of the documents' metadata that holds the node id.

    Raises:
        ValueError: there is no list of documents.
    """
    value = loaded(value)
    if isinstance(value, Mapping):
        value = loaded(pick(value, "documents", "output", "outputs", "result"))
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"no list of documents in {value!r:.200}")
    return tuple(_document(document, node_key) for document in value)


def _document(document: Any, node_key: str | None) -> ShownNode:
    if isinstance(document, str):
        return ShownNode(None, text=document)
    if not isinstance(document, Mapping):
        raise ValueError(f"a document must be a text or an object, got {document!r:.100}")
    inner = document.get("kwargs", document.get("document", document.get("node", document)))
    fields = inner if isinstance(inner, Mapping) else document
    metadata = loaded(fields.get("metadata"))
    metadata = metadata if isinstance(metadata, Mapping) else {}
    node = pick(metadata, node_key) if node_key is not None else pick(fields, "id", "node_id", "id_")
    score = pick(document, "score", "document_score")
    text = pick(fields, *TEXT_KEYS)
    return ShownNode(
        None if node is None else checked_id(node, "id of a document"),
        float(score) if isinstance(score, int | float) else None,
        text=str(text) if node is None and text is not None else None,
    )


def vote(score: Any, label: Any, threshold: float) -> str | None:
    """Return "thumbs_up" or "thumbs_down"; None for neither.

    Args:
        score: above the threshold is up, below it down.
        label: counts if there is no score.
        threshold: half of the scale.

    Raises:
        ValueError: a label that means neither.
    """
    if isinstance(score, str):
        score = {"true": 1.0, "false": 0.0}.get(score.strip().lower(), score)
        try:
            score = float(score)
        except ValueError:
            score, label = None, score
    if isinstance(score, bool | int | float) and score == score:
        return "thumbs_up" if score > threshold else "thumbs_down" if score < threshold else None
    if is_missing(label):
        return None
    word = str(label).strip().lower()
    if word not in UP | DOWN:
        raise ValueError(f"label {label!r:.100} is neither a thumb up nor down; known are {sorted(UP | DOWN)}")
    return "thumbs_up" if word in UP else "thumbs_down"


def outermost(span_ids: Collection[str], parent_of: Mapping[str, str | None]) -> set[str]:
    """Return those retrievals that are not part of another one."""
    kept = set()
    for span_id in span_ids:
        seen = {span_id}
        parent = parent_of.get(span_id)
        while parent is not None and parent not in span_ids and parent not in seen:
            seen.add(parent)
            parent = parent_of.get(parent)
        if parent is None or parent not in span_ids:
            kept.add(span_id)
    return kept


def outer_of(span_id: str, span_ids: Collection[str], parent_of: Mapping[str, str | None]) -> str:
    """Return the outermost of the retrievals that a retrieval is part of; itself if it is part of none."""
    outer, seen = span_id, {span_id}
    parent = parent_of.get(span_id)
    while parent is not None and parent not in seen:
        seen.add(parent)
        outer = parent if parent in span_ids else outer
        parent = parent_of.get(parent)
    return outer


def retrievals_of(
    run_id: str | None, trace_id: str | None, retrievals: Mapping[str, Retrieval], trace_of: Mapping[str, str]
) -> list[Retrieval]:
    """Return the retrievals that feedback on a run, or on its trace, is about."""
    if run_id is not None and run_id in retrievals:
        return [retrievals[run_id]]
    trace = trace_id or (trace_of.get(run_id, run_id) if run_id is not None else None)
    return [retrieval for query_id, retrieval in retrievals.items() if trace_of[query_id] == trace]


def about(
    retrievals: Iterable[Retrieval], node_id: str | None, action: str, time: float | None, user: str | None
) -> list[Feedback]:
    """Return the feedback on each retrieval."""
    return [Feedback(retrieval.query_id, node_id, action, None, time, user) for retrieval in retrievals]
