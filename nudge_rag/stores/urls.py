"""`open_store`: the adapters by URL, without a framework."""

from __future__ import annotations

from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.catalog import RECORDS, StoreRecord
from nudge_rag.stores.location import StoreLocation, hide_secrets

__all__ = ["SCHEMES", "open_store"]

SCHEMES: dict[str, StoreRecord] = {scheme: record for record in RECORDS for scheme in record.schemes}


def open_store(url: str) -> EmbeddingStore:
    """The `EmbeddingStore` that a URL names. The database's client is imported when it is asked for.

    ============================================== =================================================================
    ``chroma:///data/chroma?collection=docs``      a folder of the embedded client
    ``chroma://host:8000?collection=docs``         a server; ``ssl=true``, ``tenant=``, ``database=``
    ``qdrant:///data/qdrant?collection=docs``      a folder of the client's local mode; ``vector=`` a named vector
    ``qdrant://host:6333?collection=docs``         a server; ``ssl=true``, ``api_key=``, ``vector=``
    ``lance:///data/lance?table=docs``             a folder; ``id=`` and ``vector=`` columns, ``similarity=`` without
                                                   an index; ``filesystem=s3`` and the like
    ``lance:///data/docs.lance``                   a Lance dataset, with the same options
    ``parquet:///data/docs``                       a folder of files, or one; ``id=`` and ``vector=`` columns (``id``,
                                                   ``embedding``), ``similarity=``; ``filesystem=s3`` and the like
    ``milvus:///data/milvus.db?collection=docs``   a Milvus Lite file; ``vector=`` a field
    ``milvus://host:19530?collection=docs``        a server; ``ssl=true``, ``token=``, ``db=``, ``vector=``
    ``duckdb:///data/x.duckdb?table=docs``         a file; ``schema=``, ``id=`` and ``vector=`` columns, ``similarity=``
    ``faiss:///data/index.faiss?ids=ids.json``     a file; without ``ids`` those that LlamaIndex persists beside it
    ``sqlite-vec:///data/x.db?table=docs``         a file; ``vec_table=``, default ``docs_vec``, and ``vector=`` column
    ``redis://host:6379/0?index=docs``             a server; ``vector=`` a field, ``prefix=`` of keys; other options are
                                                   redis-py's own; ``rediss://`` for TLS
    ``elasticsearch://host:9200?index=docs``       an index; ``vector=`` field, ``ssl=true``, ``api_key=``; experimental
    ``opensearch://host:9200?index=docs``          the same, with ``user=`` and ``password=``; experimental
    ``pinecone://host.svc.pinecone.io?api_key=k``  an index, by its host; ``namespace=``; experimental
    ``postgresql://user@host/database?table=docs`` a table; ``schema=``, ``id=`` and ``vector=`` columns,
                                                   ``similarity=``; other options are psycopg's own
    ``weaviate://host:8080?collection=Docs``       a collection; ``vector=``, ``ssl=true``, ``api_key=``, ``grpc_port=``
                                                   (50051); experimental
    ============================================== =================================================================

    A path is absolute after three slashes; ``lance://./data?table=docs`` and the like are relative to the working
    folder. Special characters are percent-encoded.

    Raises:
        TypeError: anything but a string.
        ValueError: an unknown scheme, a missing or unknown option, or nothing at that address.
        MissingPackageError: the database's client is not installed; names the pip command.
        Exception: whatever the client raises; a StoreError in its place if that would show a password, token or key.

    Example:
        >>> open_store("oracle://docs")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: no store has the scheme 'oracle': supported are chroma://, duckdb://, ...
    """
    if not isinstance(url, str):
        raise TypeError(f"a store's URL is a string, got {type(url).__name__}")
    with hide_secrets(url):
        return _open(url)


def _open(url: str) -> EmbeddingStore:
    location = StoreLocation.of(url)
    record = SCHEMES.get(location.scheme)
    if record is None or record.url is None:
        supported = ", ".join(f"{scheme}://" for scheme in sorted(SCHEMES))
        raise ValueError(f"no store has the scheme {location.scheme!r}: supported are {supported}")
    location.check(record.url.required, record.url.optional, passes_on=record.url.passes_on)
    store: EmbeddingStore = record.load().from_url(location)
    return store
