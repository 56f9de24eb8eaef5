"""PGVectorStore: its adapter, and searches on the application's own engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.types import FilterOperator, VectorStoreQueryMode
from llama_index.retrievers.nudge.databases.base import MMR_OPTIONS, Database, Options, Request
from llama_index.retrievers.nudge.filters.safety import is_plain
from llama_index.retrievers.nudge.filters.sql import POSTGRES, sql_condition

from nudge_rag.common.arrays import FloatArray
from nudge_rag.stores import EmbeddingStore, PgVectorStore, SearchResult

__all__ = ["DATABASE"]

SEARCH_OPTIONS = frozenset({"hnsw_ef_search", "ivfflat_probes"})
ITS_OPERATORS = frozenset(FilterOperator)


class Postgres(Database):
    """A table with pgvector, with texts, and metadata in a JSON column.

    Every search runs on the engine of the vector store, as its ``customize_query_fn`` leaves it: roles, search paths,
    row-level security and conditions of the application hold.
    """

    options = SEARCH_OPTIONS | MMR_OPTIONS
    carried_options = SEARCH_OPTIONS
    mmr_prefetch = "factor"
    mmr_needs_k = True

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """Make the adapter of its table, on its own engine."""
        vector_store._initialize()  # makes the table if it is not there yet
        return PgVectorStore(
            vector_store._engine,
            vector_store._table_class.__tablename__,
            schema=vector_store.schema_name,
            id_column="node_id",
        )

    def honours(self, vector_store: Any, query: VectorStoreQuery, options: Options) -> bool:
        """Its search ignores ids and quotes no value."""
        return super().honours(vector_store, query, options) and is_plain(query.filters, ITS_OPERATORS)

    def search(self, request: Request, k: int) -> SearchResult:
        """Find the k nearest nodes by the integration's own statement, with more conditions."""
        vector_store, options = request.vector_store, request.options
        vector_store._initialize()
        statement = vector_store._build_query(request.query.query_embedding, k, None, **options)
        with vector_store._session() as session, session.begin():
            for name, value in self._settings(request, k).items():
                session.execute(_text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value})
            rows = session.execute(statement.where(*self._conditions(request))).all()
        scores = np.array([1 - row.distance for row in rows], dtype=np.float64)
        return SearchResult([[row.node_id for row in rows]], [scores])

    def match(self, request: Request, ids: list[str]) -> set[str]:
        """Choose those of ``ids`` that the filters and the application's own conditions let through."""
        from sqlalchemy import select

        vector_store = request.vector_store
        vector_store._initialize()
        table = vector_store._table_class
        statement = select(table.node_id)
        if vector_store._customize_query_fn is not None:
            statement = vector_store._customize_query_fn(statement, table, **request.options)
        statement = statement.where(table.node_id.in_(ids), *self._conditions(request))
        with vector_store._session() as session, session.begin():
            return {row.node_id for row in session.execute(statement).all()}

    def as_searched(self, vector_store: Any, queries: FloatArray) -> FloatArray:
        """A halfvec is compared with a halfvec."""
        return queries.astype(np.float16).astype(np.float64) if vector_store.use_halfvec else queries

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """Fetch nodes by id, without their vectors: the integration cannot read a halfvec into a node (version 0.9)."""
        from llama_index.vector_stores.postgres.base import DBEmbeddingRow
        from sqlalchemy import select

        vector_store._initialize()
        table = vector_store._table_class
        statement = select(table.node_id, table.text, table.metadata_).where(table.node_id.in_(ids))
        with vector_store._session() as session, session.begin():
            rows = [
                DBEmbeddingRow(row.node_id, row.text, row.metadata_, custom_fields={}, similarity=0.0)
                for row in session.execute(statement).all()
            ]
        nodes: list[BaseNode] = vector_store._db_rows_to_query_result(rows).nodes
        return nodes

    def unknown_options(self, vector_store: Any, options: Options) -> list[str]:
        """A ``customize_query_fn`` is given all options."""
        return [] if vector_store._customize_query_fn is not None else super().unknown_options(vector_store, options)

    def overlay_problem(self, vector_store: Any, mode: VectorStoreQueryMode, options: Options) -> str | None:
        """A ``customize_query_fn`` is given all options under an overlay as well."""
        if vector_store._customize_query_fn is not None:
            options = {name: value for name, value in options.items() if name in self.options}
        return super().overlay_problem(vector_store, mode, options)

    def _settings(self, request: Request, k: int) -> dict[str, str]:
        settings: dict[str, str] = {}
        if request.options.get("ivfflat_probes"):
            settings["ivfflat.probes"] = str(int(request.options["ivfflat_probes"]))
        if request.vector_store.hnsw_kwargs:
            asked = request.options.get("hnsw_ef_search") or request.vector_store.hnsw_kwargs["hnsw_ef_search"]
            # An index returns no more rows than that, and pgvector allows 1,000.
            settings["hnsw.ef_search"] = str(min(max(int(asked), k), 1_000))
        if settings:
            settings["enable_bitmapscan"] = "off"
        return settings

    def _conditions(self, request: Request) -> list[Any]:
        query, table = request.query, request.vector_store._table_class
        conditions: list[Any] = []
        if query.filters is not None:
            if request.trusting and is_plain(query.filters, ITS_OPERATORS):
                conditions.append(request.vector_store._recursively_apply_filters(query.filters))
            else:
                conditions.append(_text(sql_condition(query.filters, POSTGRES).replace(":", r"\:")))
        if query.node_ids:
            conditions.append(table.node_id.in_(query.node_ids))
        if query.doc_ids:
            conditions.append(table.metadata_["ref_doc_id"].astext.in_(query.doc_ids))
        return conditions


def _text(statement: str) -> Any:
    from sqlalchemy import text

    return text(statement)


DATABASE = Postgres()
