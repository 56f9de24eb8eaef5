"""Instrumentation handlers that record the nodes that LlamaIndex's retrievers find."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.instrumentation.events.query import QueryEndEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span_handlers import BaseSpanHandler
from pydantic import PrivateAttr

from nudge_rag.feedback.log import ShownNode
from nudge_rag.feedback.recorder import Recorder
from nudge_rag.feedback.shown import known_score
from nudge_rag.feedback.tracing import Asker, RetrievalTracker

__all__ = ["record_retrievals"]


def record_retrievals(recorder: Recorder) -> Callable[[], None]:
    """Write every question with the nodes found to ``recorder``, whichever retriever or query engine finds them.

    Retrievers within retrievers count once; nodes that a reranker or the response kept replace those that were
    retrieved. It never raises into a retrieval.

    ``instrument_tags({"nudge.query_id": ...})`` of LlamaIndex gives the id to which later feedback refers
    (``nudge.user_id`` and ``nudge.session_id`` likewise); without it, ``recorder.last_query_id`` in the same thread.

    Args:
        recorder: writes the events.

    Returns:
        A function that stops it.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> recorder = Recorder(tempfile.mkdtemp() + "/feedback.sqlite3")
        >>> stop = record_retrievals(recorder)
        >>> index = VectorStoreIndex([TextNode(text="how to pay", id_="pay")], embed_model=MockEmbedding(8))
        >>> _ = index.as_retriever().retrieve("pay?")
        >>> recorder.feedback(recorder.last_query_id, "pay", "click")
        True
        >>> stop()
        >>> [(retrieval.query, retrieval.shown[0].node_id) for retrieval in recorder.log().retrievals]
        [('pay?', 'pay')]
    """
    tracker = RetrievalTracker(recorder)
    dispatcher = get_dispatcher()
    events, spans = _RecorderEvents(tracker), _RecorderSpans(tracker)
    dispatcher.add_event_handler(events)
    dispatcher.add_span_handler(spans)

    def stop() -> None:
        dispatcher.event_handlers = [handler for handler in dispatcher.event_handlers if handler is not events]
        dispatcher.span_handlers = [handler for handler in dispatcher.span_handlers if handler is not spans]

    return stop


class _RecorderEvents(BaseEventHandler):
    _tracker: RetrievalTracker = PrivateAttr()

    def __init__(self, tracker: RetrievalTracker) -> None:
        super().__init__()
        self._tracker = tracker

    @classmethod
    def class_name(cls) -> str:
        return "NudgeRecorderEvents"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        try:
            self._handle(event)
        except Exception as error:  # LlamaIndex would swallow it without a trace
            self._tracker.recorder.count_failure(error)

    def _handle(self, event: BaseEvent) -> None:
        span_id = event.span_id or event.id_
        if isinstance(event, RetrievalStartEvent):
            self._tracker.enter(span_id, None, is_retrieval=True)
        elif isinstance(event, RetrievalEndEvent):
            query = event.str_or_query_bundle
            text = query.query_str if isinstance(query, QueryBundle) else str(query)
            tags = (event.tags.get(f"nudge.{name}_id") for name in ("query", "user", "session"))
            asker = Asker(*(None if tag is None else str(tag) for tag in tags))
            self._tracker.retrieved(span_id, text, _shown(event.nodes), asker)
        elif isinstance(event, ReRankEndEvent):
            self._tracker.kept(event.span_id, _shown(event.nodes))
        elif isinstance(event, QueryEndEvent):
            nodes = getattr(event.response, "source_nodes", None)
            if nodes is not None:
                self._tracker.kept(event.span_id, _shown(nodes))


class _RecorderSpans(BaseSpanHandler[Any]):
    """Tells which span is part of which; the events do not."""

    _tracker: RetrievalTracker = PrivateAttr()

    def __init__(self, tracker: RetrievalTracker) -> None:
        super().__init__()
        self._tracker = tracker

    @classmethod
    def class_name(cls) -> str:
        return "NudgeRecorderSpans"

    def span_enter(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any | None = None,
        parent_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._tracker.enter(id_, parent_id)

    def span_exit(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any | None = None,
        result: Any | None = None,
        **kwargs: Any,
    ) -> None:
        self._tracker.leave(id_)

    def span_drop(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,
        instance: Any | None = None,
        err: BaseException | None = None,
        **kwargs: Any,
    ) -> None:
        self._tracker.leave(id_)

    def new_span(self, *args: Any, **kwargs: Any) -> None:
        return None

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> None:
        return None

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None:
        return None


def _shown(nodes: Sequence[NodeWithScore]) -> list[ShownNode]:
    return [ShownNode(node.node.node_id, known_score(node.score)) for node in nodes]
