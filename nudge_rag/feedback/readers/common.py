"""What readers of traces share: names in several spellings, documents, votes, and which retrieval is the outermost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from nudge_rag.feedback.log import Feedback, ShownNode
from nudge_rag.feedback.reading import checked_id, checked_text
from nudge_rag.feedback.records import loaded
from nudge_rag.feedback.tables import is_missing
from nudge_rag.feedback.votes import DOWN, UP

__all__ = ["RunTree", "about", "documents_shown", "optional_text", "pick", "query_text", "vote"]

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


class RunTree:
    """Runs of traces by their parents: which retrieval is the outermost, and which one feedback on a run is about."""

    def __init__(self) -> None:
        self._parent_of: dict[str, str | None] = {}
        self._trace_of: dict[str, str] = {}
        self._outer_of: dict[str, str] = {}
        self._within: dict[str, dict[str, None]] = {}
        self._in_trace: dict[str, dict[str, None]] = {}

    def add(self, run_id: str, parent_id: str | None, trace_id: str | None, above: Sequence[str] = ()) -> None:
        """Note a run.

        Args:
            run_id: its id.
            parent_id: the run that it is part of, None at the root.
            trace_id: the trace, None if it is its own.
            above: all runs that it is part of, the outermost first, if the tool says so: they may not be exported.
        """
        self._parent_of[run_id] = parent_id
        self._trace_of[run_id] = trace_id or run_id
        for outer, inner in pairwise([*above, run_id]):
            self._parent_of.setdefault(inner, outer)

    def trace_of(self, run_id: str) -> str:
        """Return the trace of a run that was noted."""
        return self._trace_of[run_id]

    def find_retrievals(self, retrievals: Collection[str]) -> Mapping[str, str]:
        """Note which runs, all of them added, are retrievals; return the outermost one that each of them is part of."""
        for run_id in retrievals:
            path = self._upwards(run_id)
            outer = next(run for run in reversed(path) if run in retrievals)
            self._outer_of[run_id] = outer
            for run in path:
                self._within.setdefault(run, {})[outer] = None
            self._in_trace.setdefault(self._trace_of[run_id], {})[outer] = None
        return self._outer_of

    def meant_by(self, run_id: str | None, trace_id: str | None) -> list[str]:
        """Return the outermost retrievals that feedback on a run, or on a trace, is about.

        Those of the run; else those within the nearest run around it that has any, such as the chain that a model's run
        is part of; else those of the trace.
        """
        if run_id is None:
            return list(self._in_trace.get(trace_id or "", ()))
        for run in self._upwards(run_id):
            if run in self._within:
                return list(self._within[run])
        return list(self._in_trace.get(trace_id or self._trace_of.get(run_id, run_id), ()))

    def _upwards(self, run_id: str) -> list[str]:
        """A run, its parent and so on."""
        path: dict[str, None] = {}
        run: str | None = run_id
        while run is not None and run not in path:
            path[run] = None
            run = self._parent_of.get(run)
        return list(path)


def about(
    retrievals: Iterable[str], node_id: str | None, action: str, time: float | None, user: str | None
) -> list[Feedback]:
    """Return the feedback on each retrieval."""
    return [Feedback(query_id, node_id, action, None, time, user) for query_id in retrievals]
