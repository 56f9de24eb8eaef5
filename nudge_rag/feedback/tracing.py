"""Follows the spans of a framework's trace, so that each question is recorded once, with the nodes that were kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from nudge_rag.feedback.interleaving import served_teams
from nudge_rag.feedback.log import ShownNode
from nudge_rag.feedback.recorder import Recorder

__all__ = ["Asker", "RetrievalTracker"]

# A trace whose end is never told must not be remembered for ever.
MOST_SPANS = 20_000

Found = dict[str, str | None]


@dataclass(frozen=True)
class Asker:
    """Who asked, as far as the trace tells; ids that are None are made or left out."""

    query_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None


@dataclass
class _Span:
    parent: str | None
    is_retrieval: bool = False
    # Retrievals recorded below this span: query id to the nodes that they found, and the team of each.
    recorded: dict[str, Found] = field(default_factory=dict)


class RetrievalTracker:
    """Writes the outermost retrieval of each trace, and revises it when a reranker or the response keeps fewer nodes.

    Every method swallows what goes wrong in it and counts it with ``recorder.count_failure``.

    Args:
        recorder: where retrievals are written.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._spans: OrderedDict[str, _Span] = OrderedDict()
        self._lock = threading.Lock()
        self._last: ContextVar[dict[str, Found] | None] = ContextVar("nudge_last_retrieval", default=None)

    def enter(self, span_id: str, parent_id: str | None, *, is_retrieval: bool = False) -> None:
        """Note that a span began."""
        with self._lock:
            span = self._spans.setdefault(span_id, _Span(parent_id))
            span.is_retrieval |= is_retrieval
            while len(self._spans) > MOST_SPANS:
                self._spans.popitem(last=False)

    def leave(self, span_id: str) -> None:
        """Forget a span that ended."""
        with self._lock:
            self._spans.pop(span_id, None)

    def retrieved(self, span_id: str, query: str, shown: Sequence[ShownNode], asker: Asker) -> None:
        """Record a retrieval, unless it is part of another one."""
        try:
            with self._lock:
                above = [span for span_id, span in self._ancestors(span_id)]
            if any(span.is_retrieval for span in above):
                return
            shown = served_teams.label(query, shown)
            query_id = self.recorder.record(
                query, shown, query_id=asker.query_id, user_id=asker.user_id, session_id=asker.session_id
            )
            if query_id is None:
                return
            found = {_key(node): node.team for node in shown}
            self._last.set({query_id: found})
            with self._lock:
                for span in above:
                    span.recorded[query_id] = found
        except Exception as error:
            self.recorder.count_failure(error)

    def kept(self, span_id: str | None, nodes: Sequence[ShownNode]) -> None:
        """Revise the retrievals of a span, or of the nearest one around it that has any, to the nodes that were kept.

        Nodes that no retrieval found, such as the parts that a citation engine cuts, revise nothing.
        """
        try:
            recorded = self._recorded_near(span_id, nodes)
            for query_id, found in recorded.items():
                left = [replace(node, team=found[_key(node)]) for node in nodes if _key(node) in found]
                if left or not nodes:
                    self.recorder.revise(query_id, left)
        except Exception as error:
            self.recorder.count_failure(error)

    def _recorded_near(self, span_id: str | None, nodes: Sequence[ShownNode]) -> dict[str, Found]:
        if span_id is not None:
            with self._lock:
                own = self._spans.get(span_id)
                for span in ([] if own is None else [own]) + [span for _, span in self._ancestors(span_id)]:
                    if span.is_retrieval:
                        return {}  # its own result follows
                    if span.recorded:
                        return dict(span.recorded)
        # A reranker that is called by hand shares no span with the retriever that was called before it.
        last = self._last.get()
        if last is None or not all(_key(node) in found for node in nodes for found in last.values()):
            return {}
        return last if nodes else {}

    def _ancestors(self, span_id: str) -> Iterator[tuple[str, _Span]]:
        """Spans around a span, the nearest first, without itself."""
        seen = {span_id}
        span = self._spans.get(span_id)
        while span is not None and span.parent is not None and span.parent not in seen:
            seen.add(span.parent)
            parent = self._spans.get(span.parent)
            if parent is not None:
                yield span.parent, parent
            span = parent


def _key(node: ShownNode) -> str:
    return f"id {node.node_id}" if node.node_id is not None else f"text {node.text}"
