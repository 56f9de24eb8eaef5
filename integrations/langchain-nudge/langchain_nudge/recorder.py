"""A callback handler that records the documents that LangChain's retrievers find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document

from nudge_rag.feedback.log import ShownNode
from nudge_rag.feedback.recorder import Recorder
from nudge_rag.feedback.shown import known_score
from nudge_rag.feedback.tracing import Asker, RetrievalTracker

__all__ = ["RecorderCallback"]

# Keys under which chains of LangChain put the documents that their answer was made of.
KEPT = ("context", "source_documents", "documents")
MOST_ASKED = 10_000
# Keys of the metadata under which rerankers and retrievers of LangChain put a score, the last to rank first.
SCORES = ("relevance_score", "score")


class RecorderCallback(BaseCallbackHandler):
    """Writes each question with the documents found to a `nudge_rag.feedback.Recorder`.

    Retrievers within retrievers count once; documents that the chain returns (``context``, ``source_documents``)
    replace those that its retriever found. Documents without an id are recorded by text; scores if the retriever or a
    reranker writes them to the metadata (``relevance_score``, ``score``). It never raises into a retrieval.

    The config's metadata may hold ``nudge_query_id``, ``nudge_user_id`` and ``nudge_session_id``; the query id is the
    id of the retriever's run without it, and then ``recorder.last_query_id`` in the same thread (not in async chains,
    which call their handlers in tasks of their own).

    Args:
        recorder: writes the events.
        node_id: returns the node id of a document; ``document.id`` without it.

    Example:
        >>> import tempfile
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> recorder = Recorder(tempfile.mkdtemp() + "/feedback.sqlite3")
        >>> store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
        >>> _ = store.add_texts(["how to pay", "how to leave"], ids=["pay", "leave"])
        >>> retriever = store.as_retriever().with_config(callbacks=[RecorderCallback(recorder)])
        >>> _ = retriever.invoke("pay", config={"metadata": {"nudge_query_id": "q-1"}})
        >>> recorder.feedback("q-1", "pay", "thumbs_up")
        True
        >>> log = recorder.log()
        >>> log.retrievals[0].query, sorted(node.node_id for node in log.retrievals[0].shown)
        ('pay', ['leave', 'pay'])
    """

    # It is done sooner than a pool of threads, in which async chains call handlers otherwise, could begin.
    run_inline = True

    def __init__(self, recorder: Recorder, *, node_id: Callable[[Document], str | None] | None = None) -> None:
        self.recorder = recorder
        self._tracker = RetrievalTracker(recorder)
        self._node_id = node_id
        self._asked: dict[str, tuple[str, Asker]] = {}

    def on_retriever_start(
        self,
        serialized: dict[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember the question, which the end of the run does not tell."""
        found = metadata or {}
        query_id, user, session = (found.get(f"nudge_{name}_id") for name in ("query", "user", "session"))
        asker = Asker(
            str(run_id) if query_id is None else str(query_id),
            None if user is None else str(user),
            None if session is None else str(session),
        )
        self._enter(run_id, parent_run_id, is_retrieval=True)
        self._asked[str(run_id)] = query, asker
        # A retrieval that was cancelled has no end.
        while len(self._asked) > MOST_ASKED:
            self._asked.pop(next(iter(self._asked)), None)

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **kwargs: Any) -> None:
        """Write the documents found."""
        asked = self._asked.pop(str(run_id), None)
        shown = self._shown(documents)
        if asked is not None and shown is not None:
            self._tracker.retrieved(str(run_id), asked[0], shown, asked[1])
        self._tracker.leave(str(run_id))

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a retrieval that failed."""
        self._asked.pop(str(run_id), None)
        self._tracker.leave(str(run_id))

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note which run is part of which."""
        self._enter(run_id, parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Revise the retrieval to the documents that the chain kept."""
        documents = next((outputs[key] for key in KEPT if key in outputs), None) if isinstance(outputs, dict) else None
        if isinstance(documents, list) and all(isinstance(document, Document) for document in documents):
            shown = self._shown(documents)
            if shown is not None:
                self._tracker.kept(str(run_id), shown)
        self._tracker.leave(str(run_id))

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a chain that failed."""
        self._tracker.leave(str(run_id))

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note which run is part of which."""
        self._enter(run_id, parent_run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a tool's run."""
        self._tracker.leave(str(run_id))

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a tool's run that failed."""
        self._tracker.leave(str(run_id))

    def _enter(self, run_id: UUID, parent_run_id: UUID | None, *, is_retrieval: bool = False) -> None:
        parent = None if parent_run_id is None else str(parent_run_id)
        self._tracker.enter(str(run_id), parent, is_retrieval=is_retrieval)

    def _shown(self, documents: Sequence[Document]) -> list[ShownNode] | None:
        """The documents as nodes; None if the application's own ``node_id`` fails."""
        shown = []
        try:
            for document in documents:
                node_id = document.id if self._node_id is None else self._node_id(document)
                text = document.page_content if node_id is None else None
                shown.append(ShownNode(None if node_id is None else str(node_id), _score(document), text))
        except Exception as error:
            self.recorder.count_failure(error)
            return None
        return shown


def _score(document: Document) -> float | None:
    """The score in a document's metadata, which may be the user's own and anything."""
    for key in SCORES:
        with suppress(TypeError):
            score = known_score(document.metadata.get(key))
            if score is not None:
                return score
    return None
