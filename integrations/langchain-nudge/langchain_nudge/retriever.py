"""A retriever over a nudged vector store, that can serve a nudge without writing it."""

from __future__ import annotations

from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import LangSmithRetrieverParams
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import ConfigDict, Field, PositiveInt, PrivateAttr

from langchain_nudge.databases.base import Database
from langchain_nudge.databases.registry import database_of, embeddings_of
from langchain_nudge.embeddings import NudgeEmbeddings, probe_queries_with
from langchain_nudge.framework_search import ask_framework, ask_framework_async
from langchain_nudge.queries import model_of
from langchain_nudge.search import AdapterSearch
from langchain_nudge.stores import embedding_store
from nudge_rag import Nudge
from nudge_rag.feedback.interleaving import is_interleaved, serve_interleaved
from nudge_rag.solvers import QueryAdapter
from nudge_rag.tuning.adapters import LiveAdapter, OnUnreadable, map_query, warn_of_other_model
from nudge_rag.tuning.overlays import lay_over

__all__ = ["NudgeRetriever"]


class NudgeRetriever(VectorStoreRetriever):
    """Retrieve documents of a nudged vector store as ``vectorstore.as_retriever(...)`` does.

    The framework's own search answers, on the vectors that the store holds. An ``overlay`` is answered by the library,
    with the framework's filters, search types and options. If the nudge that is live, or the overlay, maps queries
    (``tune(reach="queries")``), they are mapped first.

    Args:
        vectorstore: the vector store, tuned and pushed, or as it was.
        search_type: ``"similarity"``, ``"similarity_score_threshold"`` or ``"mmr"``.
        search_kwargs: as for ``as_retriever``: ``k``, ``filter``, ``score_threshold``, ``fetch_k``, ``lambda_mult`` and
            what else the vector store's search takes; also per call, ``retriever.invoke("...", k=10)``.
        k: how many documents; goes before ``search_kwargs["k"]``; by default the vector store's own number.
        filter: in the vector store's own form (a function of the document for InMemoryVectorStore, a dictionary for
            Chroma and PostgreSQL, a ``Filter`` for Qdrant, an expression for Milvus, an SQL condition for LanceDB);
            goes before ``search_kwargs["filter"]``.
        overlay: a nudge, not pushed, to serve from memory over the store's own vectors; nothing is written.
        query_embeddings: the model that embeds queries; by default the vector store's own. Under an overlay, which has
            its own map, that of `NudgeEmbeddings` is left out.
        interleave: a nudge, not pushed, to compare with the live version: answers are a team-draft interleaving of both
            rankings, and `nudge_rag.feedback.Recorder.compare` tells which one users prefer.
        interleave_share: share of the users that see both, by a hash of ``nudge_user_id`` in the config's metadata.
        versions: folder of the history of pushes; by default the store's own, or the one that the store names.
        persist_path: the ``index.faiss`` that a FAISS store was loaded from, which it does not say itself, or the
            file of an InMemoryVectorStore: the history lies beside it.
        on_unreadable: if the history cannot be read, whether a nudge that is live maps queries is not known:
            ``"raise"`` refuses to start, ``"serve"`` serves queries as they are, with a warning.
        score_key: if given, each document's metadata hold its score (the store's own similarity) under this key.

    Raises:
        pydantic.ValidationError: a field that does not exist, or a value that does not fit.
        TypeError: a vector store that is not supported.
        ValueError: no embeddings; an option that an overlay cannot honour; a file of a store that keeps its own data.
        nudge_rag.JournalError: the history cannot be read.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> store = InMemoryVectorStore.from_texts(["a", "b"], DeterministicFakeEmbedding(size=8))
        >>> [document.page_content for document in NudgeRetriever(vectorstore=store, k=1).invoke("b")]
        ['b']
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    k: PositiveInt | None = None
    filter: Any = None
    overlay: Nudge | None = None
    query_embeddings: Embeddings | None = None
    score_key: str | None = None
    interleave: Nudge | None = None
    interleave_share: float = Field(default=1.0, ge=0, le=1)
    versions: str | Path | None = None
    persist_path: str | Path | None = None
    on_unreadable: OnUnreadable = "raise"
    # The adapter's search, and the fields that it was opened for: they may be changed, and copied.
    _opened: tuple[tuple[Any, ...], AdapterSearch] | None = PrivateAttr(default=None)
    _rival: tuple[Any, ...] | None = PrivateAttr(default=None)
    # Looks up the map of queries of the live version, and what it does so for.
    _live: tuple[tuple[Any, ...], LiveAdapter] | None = PrivateAttr(default=None)
    # The overlay and the model that were compared.
    _compared: tuple[Any, Any] | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Report an unsupported store, missing embeddings and options that do not fit at once, not at the first use."""
        super().model_post_init(context)
        if self.tags is None:
            self.tags = self.vectorstore._get_retriever_tags()
        database = self._database
        options = self._options(None, None, {})
        database.check_filter(self.vectorstore, options.get(database.filter_option))
        _ = self._embeddings
        if self.persist_path is not None:
            embedding_store(self.vectorstore, persist_path=self.persist_path)
        try:
            search = self._search
        except Exception:
            if self._needs_adapter or database.is_made(self.vectorstore):
                raise
        else:
            if self._needs_adapter:
                search.check_options(self.search_type, options)
        live = self._live_adapter
        if live is not None:
            live.start()

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out the opened adapter: it is opened again when the copy is used."""
        state = super().__getstate__()
        return state | {
            "__pydantic_private__": {
                **(state["__pydantic_private__"] or {}),
                "_opened": None,
                "_live": None,
                "_rival": None,
                "_compared": None,
            }
        }

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> NudgeRetriever:
        """Copy the fields; the adapter is opened again when the copy is used."""
        kept = self._opened, self._live, self._rival, self._compared
        self._opened = self._live = self._rival = self._compared = None
        try:
            return super().__deepcopy__(memo)
        finally:
            self._opened, self._live, self._rival, self._compared = kept

    @property
    def _database(self) -> Database:
        database = database_of(self.vectorstore)
        if database is None:
            embedding_store(self.vectorstore)  # raises, and names the supported classes
            raise TypeError(f"{type(self.vectorstore).__name__} has no documents: use a supported vector store")
        return database

    @property
    def _embeddings(self) -> Embeddings:
        embeddings: Embeddings | None = self.query_embeddings or embeddings_of(self.vectorstore)
        if embeddings is None:
            raise ValueError(f"{type(self.vectorstore).__name__} has no embeddings of its own: pass query_embeddings=")
        # An overlay has its own map, or none: that of what is live is not for it.
        return embeddings if self.overlay is None else model_of(self.vectorstore, embeddings)

    @property
    def _search(self) -> AdapterSearch:
        fields = self.vectorstore, self.overlay, self.versions, self.on_unreadable, self.persist_path
        opened = self._opened
        if opened is None or any(old is not new for old, new in zip(opened[0], fields, strict=True)):
            store = embedding_store(self.vectorstore, persist_path=self.persist_path)
            if self.overlay is not None:
                store = lay_over(self.overlay, store, self.versions, self.on_unreadable)
            search = AdapterSearch(self.vectorstore, self._database, store)
            opened = self._opened = fields, search
        return opened[1]

    def _find_map(self) -> QueryAdapter | None:
        """The map that queries have to pass; None if there is none, or the embeddings apply it themselves."""
        live, embeddings = self._live_adapter, self._embeddings
        if live is not None:
            try:
                return live.find()
            except Exception:
                if self._database.is_made(self.vectorstore):
                    raise
                return None  # no document was added yet: nothing was pushed
        if self.overlay is None:
            return None
        self._compare_model(self.overlay, embeddings)
        return self.overlay.adapter

    @property
    def _live_adapter(self) -> LiveAdapter | None:
        """What looks up the map of the live version; None if that does not count."""
        if self.overlay is not None or isinstance(self._embeddings, NudgeEmbeddings):
            return None
        fields = self.vectorstore, self.versions, self.on_unreadable, self._embeddings, self.persist_path
        if self._live is None or any(old is not new for old, new in zip(self._live[0], fields, strict=True)):
            vectorstore, path, probe = self.vectorstore, self.persist_path, probe_queries_with(self._embeddings)
            adapter = LiveAdapter(
                lambda: embedding_store(vectorstore, persist_path=path),
                self.versions,
                on_unreadable=self.on_unreadable,
                embed_queries=probe,
            )
            self._live = fields, adapter
        return self._live[1]

    def _compare_model(self, overlay: Nudge, embeddings: Embeddings) -> None:
        """Warn once if the overlay was made for another model."""
        if self._compared is None or self._compared[0] is not overlay or self._compared[1] is not embeddings:
            self._compared = overlay, embeddings
            warn_of_other_model(overlay.fingerprint, probe_queries_with(embeddings), "the overlay")

    @property
    def _needs_adapter(self) -> bool:
        """Whether the framework's own search cannot answer the request."""
        return not (self.overlay is None and self.query_embeddings is None and self.score_key is None)

    def _options(self, k: int | None, given: Any, more: dict[str, Any]) -> dict[str, Any]:
        """Merge the options of the framework's search: search_kwargs, then fields, then the call."""
        name = self._database.filter_option
        options = dict(self.search_kwargs)
        if name != "filter" and "filter" in options:
            options[name] = options.pop("filter")
        for of_k, of_filter in ((self.k, self.filter), (k, given)):
            options |= {"k": of_k} if of_k is not None else {}
            options |= {name: of_filter} if of_filter is not None else {}
        options |= more
        asked = options.get("k", 1)
        if isinstance(asked, bool) or not isinstance(asked, Integral) or asked < 1:
            raise ValueError(f"k must be a positive integer, got {asked!r}")
        # Whatever numpy counted: some databases take Python's own integers alone.
        return options | {"k": int(asked)} if "k" in options else options

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_embedding_provider"] = type(self._embeddings).__name__
        return params

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Any = None,
        **kwargs: Any,
    ) -> list[Document]:
        found = self._answer(query, k, filter, kwargs)
        rival = self._interleaved_with(run_manager)
        if rival is None:
            return found
        return serve_interleaved(query, found, rival._answer(query, k, filter, kwargs), _id_of)

    def _answer(self, query: str, k: int | None, given: Any, more: dict[str, Any]) -> list[Document]:
        options = self._options(k, given, more)
        database = self._database
        database.check_filter(self.vectorstore, options.get(database.filter_option))
        query_map = self._find_map()
        if query_map is not None or self._needs_adapter or not database.honours(self.vectorstore, options, False):
            return self._from_adapter(map_query(query_map, self._embeddings.embed_query(query)), options)
        return ask_framework(database, self.vectorstore, self.search_type, query, options)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Any = None,
        **kwargs: Any,
    ) -> list[Document]:
        found = await self._aanswer(query, k, filter, kwargs)
        rival = self._interleaved_with(run_manager)
        if rival is None:
            return found
        return serve_interleaved(query, found, await rival._aanswer(query, k, filter, kwargs), _id_of)

    async def _aanswer(self, query: str, k: int | None, given: Any, more: dict[str, Any]) -> list[Document]:
        options = self._options(k, given, more)
        database = self._database
        database.check_filter(self.vectorstore, options.get(database.filter_option))
        query_map = await run_in_executor(None, self._find_map)
        needs_adapter = query_map is not None or self._needs_adapter
        if not needs_adapter and database.honours(self.vectorstore, options, True):
            return await ask_framework_async(database, self.vectorstore, self.search_type, query, options)
        if not needs_adapter and database.honours(self.vectorstore, options, False):
            ask = partial(ask_framework, database, self.vectorstore, self.search_type)
            return await run_in_executor(None, ask, query, options)
        vector = await self._embeddings.aembed_query(query)
        return await run_in_executor(None, self._from_adapter, map_query(query_map, vector), options)

    def _interleaved_with(
        self, run_manager: CallbackManagerForRetrieverRun | AsyncCallbackManagerForRetrieverRun
    ) -> NudgeRetriever | None:
        """The same retriever with the nudge to compare with as its overlay, if this question is answered by both."""
        if self.interleave is None:
            return None
        user = run_manager.metadata.get("nudge_user_id")
        if not is_interleaved(None if user is None else str(user), self.interleave_share):
            return None
        # Fields may be changed at any time, and the adapter of an overlay is costly to open.
        fields = tuple(getattr(self, name) for name in type(self).model_fields)
        opened = self._rival
        if opened is None or any(old is not new for old, new in zip(opened[0], fields, strict=True)):
            rival = self.model_copy(update={"overlay": self.interleave, "interleave": None})
            rival._opened = rival._rival = None
            opened = self._rival = fields, rival
        found: NudgeRetriever = opened[1]
        return found

    def _from_adapter(self, vector: list[float], options: dict[str, Any]) -> list[Document]:
        if not self._needs_adapter:
            options = self._database.drop_ignored(options)
        if not self._needs_adapter and self.search_type == "similarity":
            documents = self._database.find_documents(self.vectorstore, vector, options)
            if documents is not None:
                return documents
        found = self._search.find(self.search_type, vector, options)
        if self.score_key is None:
            return [document for document, _ in found]
        return [
            document.model_copy(update={"metadata": {**document.metadata, self.score_key: score}})
            for document, score in found
        ]


def _id_of(document: Document) -> str:
    return document.id or document.page_content
