"""Every database as data: the classes that hold it, and the range of its adapter."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from nudge_rag.stores.base import Capabilities, Similarity

__all__ = ["RECORDS", "StoreRecord", "UrlOptions", "load"]

ALL: tuple[Similarity, ...] = ("cosine", "dot", "l2")
NEVER, ALWAYS, DEPENDS = (False,), (True,), (False, True)


@dataclass(frozen=True)
class UrlOptions:
    """The options of a database's URL.

    Attributes:
        required: options that must be there.
        optional: options that may be there.
        passes_on: whether all others go to the database's client.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    passes_on: bool = False


@dataclass(frozen=True)
class StoreRecord:
    """One database: the classes that hold it, and the range of `Capabilities` of its opened stores.

    Attributes:
        name: the adapter's ``name``.
        title: the database's name in words.
        llama_index: the classes of LlamaIndex that lead to this adapter.
        langchain: the classes of LangChain that lead to it.
        extra: the extra of nudge-rag that installs the client.
        scheme: of `open_store`, if it opens this database.
        similarities: values that `Capabilities.similarity` takes.
        dtypes: values that `Capabilities.dtype` takes.
        exact_search: values that the field of this name of `Capabilities` takes.
        batch_search: values that the field of this name of `Capabilities` takes.
        filters: values that the field of this name of `Capabilities` takes.
        persistent: values that the field of this name of `Capabilities` takes.
        side_by_side: values that the field of this name of `Capabilities` takes.
        atomic_switch: values that the field of this name of `Capabilities` takes.
        unit_length: the similarities under which vectors are kept at unit length.
        keeps_norms: the values that the field takes under the other similarities.
        rounding: the largest that there is.
        index: how it searches if that is not exact, in words.
        beside: when it holds two versions side by side, in words, if not always.
        note: anything else to know about how vectors are kept.
        experimental: whether the adapter was only checked against the client, not against the database.
        adapter: the adapter's class, as ``module:Class``; imported when it is asked for.
        url: the options of its URLs, which the class's ``from_url`` takes.
        tls_scheme: of `open_store`, if a connection over TLS has one of its own.
    """

    name: str
    title: str
    extra: str
    llama_index: tuple[str, ...] = ()
    langchain: tuple[str, ...] = ()
    scheme: str | None = None
    similarities: tuple[Similarity, ...] = ALL
    dtypes: tuple[str, ...] = ("float32",)
    unit_length: tuple[Similarity, ...] = ()
    keeps_norms: tuple[bool, ...] = ALWAYS
    exact_search: tuple[bool, ...] = ALWAYS
    batch_search: tuple[bool, ...] = ALWAYS
    filters: tuple[bool, ...] = ALWAYS
    persistent: tuple[bool, ...] = ALWAYS
    side_by_side: tuple[bool, ...] = NEVER
    atomic_switch: tuple[bool, ...] = NEVER
    rounding: float = 0.0
    index: str = ""
    beside: str = ""
    note: str = ""
    experimental: bool = False
    adapter: str = ""
    url: UrlOptions | None = None
    tls_scheme: str | None = None

    @property
    def class_name(self) -> str:
        """The name of the adapter's class."""
        return self.adapter.rpartition(":")[2]

    @property
    def schemes(self) -> tuple[str, ...]:
        """All schemes of `open_store` that open this database."""
        return tuple(scheme for scheme in (self.scheme, self.tls_scheme) if scheme)

    def load(self) -> Any:
        """Import the adapter's class."""
        return load(self.adapter)

    def departures(self, capabilities: Capabilities) -> list[str]:
        """The fields of an opened store's ``capabilities`` that this record does not allow, with their values.

        Example:
            >>> record = StoreRecord("mine", "Mine", "mine", similarities=("dot",))
            >>> record.departures(Capabilities("cosine", persistent=True, rounding=0.1))
            ["similarity='cosine'", 'rounding=0.1']
        """
        allowed = {
            "similarity": self.similarities,
            "dtype": self.dtypes,
            "keeps_norms": NEVER if capabilities.similarity in self.unit_length else self.keeps_norms,
            "experimental": (self.experimental,),
        }
        for field in ("exact_search", "batch_search", "filters", "persistent", "side_by_side", "atomic_switch"):
            allowed[field] = getattr(self, field)
        wrong = [field for field, values in allowed.items() if getattr(capabilities, field) not in values]
        if capabilities.rounding > self.rounding:
            wrong.append("rounding")
        return [f"{field}={getattr(capabilities, field)!r}" for field in wrong]


def load(place: str) -> Any:
    """Import what ``module:name`` names.

    Example:
        >>> load("nudge_rag.stores.base:Capabilities").__name__
        'Capabilities'
    """
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


# Another database is one entry here; the tests compare it with the opened stores, the integrations and the URLs.
RECORDS: tuple[StoreRecord, ...] = (
    StoreRecord(
        "simple",
        "LlamaIndex's own, in memory or a file",
        "simple",
        llama_index=("SimpleVectorStore",),
        similarities=("cosine",),
        dtypes=("float64",),
        persistent=DEPENDS,
        side_by_side=ALWAYS,
        atomic_switch=ALWAYS,
        adapter="nudge_rag.stores.memory.llama_index:SimpleStore",
    ),
    StoreRecord(
        "in-memory",
        "LangChain's own, in memory or a file",
        "in-memory",
        langchain=("InMemoryVectorStore",),
        similarities=("cosine",),
        dtypes=("float64",),
        persistent=DEPENDS,
        side_by_side=ALWAYS,
        atomic_switch=ALWAYS,
        adapter="nudge_rag.stores.memory.langchain:InMemoryStore",
    ),
    StoreRecord(
        "chroma",
        "Chroma, embedded or a server",
        "chroma",
        ("ChromaVectorStore",),
        ("Chroma",),
        "chroma",
        exact_search=NEVER,
        index="HNSW",
        side_by_side=ALWAYS,
        beside="with a gap of milliseconds",
        adapter="nudge_rag.stores.chroma.store:ChromaStore",
        url=UrlOptions(("collection",), ("ssl", "tenant", "database")),
    ),
    StoreRecord(
        "qdrant",
        "Qdrant, local mode or a server",
        "qdrant",
        ("QdrantVectorStore",),
        ("QdrantVectorStore",),
        "qdrant",
        unit_length=("cosine",),
        exact_search=DEPENDS,
        persistent=DEPENDS,
        rounding=1e-6,
        index="HNSW on a server",
        side_by_side=DEPENDS,
        atomic_switch=DEPENDS,
        beside="where opened by an alias",
        adapter="nudge_rag.stores.qdrant.store:QdrantStore",
        url=UrlOptions(("collection",), ("vector", "ssl", "api_key")),
    ),
    StoreRecord(
        "faiss",
        "FAISS: flat, IVF, HNSW, with or without an IDMap",
        "faiss",
        ("FaissVectorStore", "FaissMapVectorStore"),
        ("FAISS",),
        "faiss",
        similarities=("dot", "l2"),
        exact_search=DEPENDS,
        persistent=DEPENDS,
        index="the index's",
        side_by_side=DEPENDS,
        atomic_switch=DEPENDS,
        beside="where a framework or a file holds the index",
        adapter="nudge_rag.stores.faiss.store:FaissStore",
        url=UrlOptions((), ("ids",)),
    ),
    StoreRecord(
        "postgres",
        "PostgreSQL with pgvector",
        "pgvector",
        ("PGVectorStore",),
        ("PGVector", "PGVectorStore", "AsyncPGVectorStore"),
        "postgresql",
        exact_search=DEPENDS,
        index="the table's index",
        side_by_side=ALWAYS,
        atomic_switch=ALWAYS,
        note="float16 in halfvec columns",
        adapter="nudge_rag.stores.postgres.store:PgVectorStore",
        url=UrlOptions(("table",), ("schema", "id", "vector", "similarity"), passes_on=True),
    ),
    StoreRecord(
        "lancedb",
        "LanceDB",
        "lancedb",
        ("LanceDBVectorStore",),
        ("LanceDB",),
        "lance",
        dtypes=("float32", "float64"),
        exact_search=DEPENDS,
        index="the table's index",
        side_by_side=DEPENDS,
        atomic_switch=DEPENDS,
        beside="where opened at the latest version",
        adapter="nudge_rag.stores.lance.store:LanceStore",
        url=UrlOptions(("table",), ("id", "vector")),
    ),
    StoreRecord(
        "milvus",
        "Milvus, Milvus Lite or a server",
        "milvus",
        ("MilvusVectorStore",),
        ("Milvus",),
        "milvus",
        exact_search=DEPENDS,
        index="the field's index",
        side_by_side=DEPENDS,
        atomic_switch=DEPENDS,
        beside="where opened by an alias",
        adapter="nudge_rag.stores.milvus.store:MilvusStore",
        url=UrlOptions(("collection",), ("vector", "ssl", "token", "db")),
    ),
    StoreRecord(
        "duckdb",
        "DuckDB, in memory or a file",
        "duckdb",
        ("DuckDBVectorStore",),
        ("DuckDB",),
        "duckdb",
        dtypes=("float32", "float64"),
        persistent=DEPENDS,
        adapter="nudge_rag.stores.duckdb.store:DuckDBStore",
        url=UrlOptions(("table",), ("schema", "id", "vector", "similarity")),
    ),
    StoreRecord(
        "sqlite-vec",
        "SQLite with sqlite-vec",
        "sqlite-vec",
        langchain=("SQLiteVec",),
        scheme="sqlite-vec",
        similarities=("cosine", "l2"),
        batch_search=NEVER,
        persistent=DEPENDS,
        adapter="nudge_rag.stores.sqlite_vec.store:SQLiteVecStore",
        url=UrlOptions(("table",), ("vec_table", "vector")),
    ),
    StoreRecord(
        "redis",
        "Redis 7.2 or later, or Redis Stack",
        "redis",
        ("RedisVectorStore",),
        ("RedisVectorStore",),
        "redis",
        dtypes=("float32", "float64"),
        exact_search=DEPENDS,
        index="HNSW",
        adapter="nudge_rag.stores.redis.store:RedisStore",
        url=UrlOptions(("index",), ("vector", "prefix"), passes_on=True),
        tls_scheme="rediss",
    ),
    StoreRecord(
        "elasticsearch",
        "Elasticsearch",
        "elasticsearch",
        ("ElasticsearchStore",),
        ("ElasticsearchStore",),
        "elasticsearch",
        keeps_norms=DEPENDS,
        exact_search=DEPENDS,
        rounding=1e-6,
        index="the field's index",
        note="under cosine to within 1e-06",
        experimental=True,
        adapter="nudge_rag.stores.elasticsearch:ElasticsearchStore",
        url=UrlOptions(("index",), ("vector", "ssl", "api_key")),
    ),
    StoreRecord(
        "opensearch",
        "OpenSearch",
        "opensearch",
        ("OpensearchVectorStore",),
        ("OpenSearchVectorSearch",),
        "opensearch",
        keeps_norms=DEPENDS,
        exact_search=DEPENDS,
        rounding=1e-6,
        index="the field's index",
        note="by faiss under cosine at unit length, to within 1e-06",
        experimental=True,
        adapter="nudge_rag.stores.opensearch:OpenSearchStore",
        url=UrlOptions(("index",), ("vector", "ssl", "user", "password")),
    ),
    StoreRecord(
        "pinecone",
        "Pinecone",
        "pinecone",
        ("PineconeVectorStore",),
        ("PineconeVectorStore",),
        "pinecone",
        exact_search=NEVER,
        batch_search=NEVER,
        index="Pinecone's own",
        experimental=True,
        adapter="nudge_rag.stores.pinecone.store:PineconeStore",
        url=UrlOptions(("api_key",), ("namespace", "ssl")),
    ),
    StoreRecord(
        "weaviate",
        "Weaviate",
        "weaviate",
        ("WeaviateVectorStore",),
        ("WeaviateVectorStore",),
        "weaviate",
        exact_search=NEVER,
        batch_search=NEVER,
        rounding=1e-6,
        index="the collection's index",
        note="under cosine to within 1e-06",
        experimental=True,
        adapter="nudge_rag.stores.weaviate:WeaviateStore",
        url=UrlOptions(("collection",), ("vector", "ssl", "grpc_port", "api_key")),
    ),
)
