"""`open_store`: the adapters by URL, without a framework."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import ParseResult, parse_qsl, unquote, urlencode, urlparse, urlunparse

from nudge_rag.stores.base import EmbeddingStore

__all__ = ["OPENERS", "open_store"]


def open_store(url: str) -> EmbeddingStore:
    """The `EmbeddingStore` that a URL names. The database's client is imported when it is asked for.

    ============================================== =================================================================
    ``chroma:///data/chroma?collection=docs``      a folder of the embedded client
    ``chroma://host:8000?collection=docs``         a server; ``ssl=true``, ``tenant=``, ``database=``
    ``qdrant:///data/qdrant?collection=docs``      a folder of the client's local mode; ``vector=`` a named vector
    ``qdrant://host:6333?collection=docs``         a server; ``ssl=true``, ``api_key=``, ``vector=``
    ``lance:///data/lance?table=docs``             a folder; ``id=`` and ``vector=`` columns
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
        ImportError: the database's client is not installed; names the pip command.

    Example:
        >>> open_store("oracle://docs")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: no store has the scheme 'oracle': supported are chroma://, duckdb://, ...
    """
    if not isinstance(url, str):
        raise TypeError(f"a store's URL is a string, got {type(url).__name__}")
    parsed = urlparse(url)
    if parsed.scheme not in OPENERS:
        supported = ", ".join(f"{scheme}://" for scheme in sorted(OPENERS))
        raise ValueError(f"no store has the scheme {parsed.scheme!r}: supported are {supported}")
    options = parse_qsl(parsed.query, keep_blank_values=True, strict_parsing=bool(parsed.query))
    if len(dict(options)) != len(options):
        raise ValueError(f"an option is given twice: {', '.join(name for name, _ in options)}")
    return OPENERS[parsed.scheme](parsed, dict(options))


def take(scheme: str, options: dict[str, str], required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, str]:
    """``options``, once none is missing or unknown."""
    missing = [name for name in required if not options.get(name)]
    unknown = sorted(set(options) - {*required, *optional})
    if missing or unknown:
        wrong = f"misses {', '.join(missing)}" if missing else f"has unknown options {', '.join(unknown)}"
        raise ValueError(f"a {scheme}:// URL {wrong}; its options are {', '.join((*required, *optional))}")
    return options


def path_of(parsed: ParseResult) -> str | None:
    """The file or folder that a URL names, None if it names a host."""
    if parsed.netloc in (".", ".."):
        return unquote(parsed.netloc + parsed.path)
    if parsed.netloc:
        if parsed.path not in ("", "/"):
            raise ValueError(
                f"{parsed.geturl()!r} names both a host and a path: a path starts after three slashes, or with ./"
            )
        return None
    if parsed.path in ("", "/"):
        raise ValueError(f"{parsed.geturl()!r} names neither a path nor a host")
    return unquote(parsed.path)


def address_of(parsed: ParseResult, options: dict[str, str], default_port: int) -> str:
    """``http://host:port`` of a server, or https where ``ssl=true``."""
    secure = options.get("ssl", "false")
    if secure not in ("true", "false"):
        raise ValueError(f"ssl must be true or false, got {secure!r}")
    if not parsed.hostname or not re.fullmatch(r"[A-Za-z0-9.:_-]+", parsed.hostname):
        raise ValueError(f"{parsed.netloc!r} is not a host and port")
    if parsed.username is not None:
        raise ValueError("user and password are no part of this URL: give the server's own options instead")
    host = f"[{parsed.hostname}]" if ":" in parsed.hostname else parsed.hostname
    return f"{'https' if secure == 'true' else 'http'}://{host}:{parsed.port or default_port}"


def needed_path(parsed: ParseResult) -> str:
    """The path of a URL that cannot name a host."""
    path = path_of(parsed)
    if path is None:
        raise ValueError(f"{parsed.scheme}:// takes a path, after three slashes or with ./, got {parsed.netloc!r}")
    return path


def _chroma(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.chroma.copies import recovered
    from nudge_rag.stores.chroma.store import ChromaStore

    options = take("chroma", given, ("collection",), ("ssl", "tenant", "database"))
    path = path_of(parsed)
    if path is not None:
        return ChromaStore.open(path, options["collection"])
    address = urlparse(address_of(parsed, options, 8000))
    try:
        import chromadb
    except ImportError as error:
        raise ImportError("chroma:// needs Chroma: pip install 'nudge-rag[chroma]'") from error
    names: dict[str, Any] = {name: options[name] for name in ("tenant", "database") if name in options}
    client = chromadb.HttpClient(
        host=str(address.hostname), port=address.port or 8000, ssl=address.scheme == "https", **names
    )
    return ChromaStore(recovered(client, options["collection"]))


def _qdrant(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.qdrant.store import QdrantStore

    options = take("qdrant", given, ("collection",), ("vector", "ssl", "api_key"))
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise ImportError("qdrant:// needs Qdrant's client: pip install 'nudge-rag[qdrant]'") from error
    path = path_of(parsed)
    if path is not None:
        client = QdrantClient(path=path)
    else:
        client = QdrantClient(url=address_of(parsed, options, 6333), api_key=options.get("api_key"))
    return QdrantStore(client, options["collection"], vector_name=options.get("vector"))


def _lance(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.lance.store import LanceStore

    options = take("lance", given, ("table",), ("id", "vector"))
    names = {"id": "id_column", "vector": "vector_column"}
    chosen = {names[name]: value for name, value in options.items() if name in names}
    return LanceStore.open(needed_path(parsed), options["table"], **chosen)


def _duckdb(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.duckdb import DuckDBStore

    names = {"schema": "schema", "id": "id_column", "vector": "vector_column", "similarity": "similarity"}
    options = take("duckdb", given, ("table",), tuple(names))
    chosen: dict[str, Any] = {names[name]: value for name, value in options.items() if name in names}
    return DuckDBStore.open(needed_path(parsed), options["table"], **chosen)


def _sqlite_vec(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.sqlite_vec import SQLiteVecStore

    names = {"vec_table": "vec_table", "vector": "vector_column"}
    options = take("sqlite-vec", given, ("table",), tuple(names))
    chosen = {names[name]: value for name, value in options.items() if name in names}
    return SQLiteVecStore.open(needed_path(parsed), options["table"], **chosen)


def _faiss(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.faiss.store import FaissStore

    options = take("faiss", given, (), ("ids",))
    return FaissStore.open(needed_path(parsed), options.get("ids"))


def _milvus(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.milvus.store import MilvusStore

    options = take("milvus", given, ("collection",), ("vector", "ssl", "token", "db"))
    path = path_of(parsed)
    return MilvusStore.open(
        address_of(parsed, options, 19530) if path is None else path,
        options["collection"],
        token=options.get("token", ""),
        db_name=options.get("db", ""),
        vector_field=options.get("vector"),
    )


def _postgres(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.postgres.store import PgVectorStore

    names = {"schema": "schema", "id": "id_column", "vector": "vector_column", "similarity": "similarity"}
    others = {name: value for name, value in given.items() if name not in ("table", *names)}
    options = take("postgresql", {n: v for n, v in given.items() if n not in others}, ("table",), tuple(names))
    chosen: dict[str, Any] = {names[name]: value for name, value in options.items() if name in names}
    return PgVectorStore(urlunparse(parsed._replace(query=urlencode(others))), options["table"], **chosen)


def _elasticsearch(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.elasticsearch import ElasticsearchStore

    options = take("elasticsearch", given, ("index",), ("vector", "ssl", "api_key"))
    try:
        from elasticsearch import Elasticsearch
    except ImportError as error:
        raise ImportError("elasticsearch:// needs its client: pip install 'nudge-rag[elasticsearch]'") from error
    client = Elasticsearch(address_of(parsed, options, 9200), api_key=options.get("api_key"))
    return ElasticsearchStore(client, options["index"], vector_field=options.get("vector"))


def _opensearch(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.opensearch import OpenSearchStore

    options = take("opensearch", given, ("index",), ("vector", "ssl", "user", "password"))
    try:
        from opensearchpy import OpenSearch
    except ImportError as error:
        raise ImportError("opensearch:// needs its client: pip install 'nudge-rag[opensearch]'") from error
    login = (options["user"], options.get("password", "")) if "user" in options else None
    client = OpenSearch(address_of(parsed, options, 9200), http_auth=login)
    return OpenSearchStore(client, options["index"], vector_field=options.get("vector"))


def _pinecone(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.pinecone.store import PineconeStore

    options = take("pinecone", given, ("api_key",), ("namespace", "ssl"))
    try:
        from pinecone import Pinecone
    except ImportError as error:
        raise ImportError("pinecone:// needs its client: pip install 'nudge-rag[pinecone]'") from error
    secure = {"ssl": "true", **options}
    address = address_of(parsed, secure, 443 if secure["ssl"] == "true" else 80)
    return PineconeStore(Pinecone(api_key=options["api_key"]).Index(host=address), namespace=options.get("namespace"))


def _weaviate(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.weaviate import WeaviateStore

    options = take("weaviate", given, ("collection",), ("vector", "ssl", "grpc_port", "api_key"))
    try:
        import weaviate
    except ImportError as error:
        raise ImportError("weaviate:// needs its client: pip install 'nudge-rag[weaviate]'") from error
    address = urlparse(address_of(parsed, options, 8080))
    secure = address.scheme == "https"
    client = weaviate.connect_to_custom(
        http_host=str(address.hostname),
        http_port=address.port or 8080,
        http_secure=secure,
        grpc_host=str(address.hostname),
        grpc_port=int(options.get("grpc_port", "50051")),
        grpc_secure=secure,
        auth_credentials=weaviate.auth.AuthApiKey(options["api_key"]) if "api_key" in options else None,
    )
    return WeaviateStore(client.collections.get(options["collection"]), vector_name=options.get("vector"))


def _redis(parsed: ParseResult, given: dict[str, str]) -> EmbeddingStore:
    from nudge_rag.stores.redis.store import RedisStore

    names = {"vector": "vector_field", "prefix": "prefix"}
    others = {name: value for name, value in given.items() if name not in ("index", *names)}
    options = take(parsed.scheme, {n: v for n, v in given.items() if n not in others}, ("index",), tuple(names))
    chosen: dict[str, Any] = {names[name]: value for name, value in options.items() if name in names}
    return RedisStore.open(urlunparse(parsed._replace(query=urlencode(others))), options["index"], **chosen)


# Another database is one line here: scheme, and a function of the parsed URL and its options.
OPENERS: dict[str, Callable[[ParseResult, dict[str, str]], EmbeddingStore]] = {
    "chroma": _chroma,
    "duckdb": _duckdb,
    "elasticsearch": _elasticsearch,
    "faiss": _faiss,
    "lance": _lance,
    "milvus": _milvus,
    "opensearch": _opensearch,
    "pinecone": _pinecone,
    "postgresql": _postgres,
    "qdrant": _qdrant,
    "redis": _redis,
    "rediss": _redis,
    "sqlite-vec": _sqlite_vec,
    "weaviate": _weaviate,
}
