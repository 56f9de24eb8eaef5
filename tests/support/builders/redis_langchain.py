"""Redis through LangChain, whose client library is another than LlamaIndex can have."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import redis
from langchain_redis import RedisConfig, RedisVectorStore

from nudge_rag.stores import RedisStore
from tests.support.builders.common import DIMENSION, Built, LangChainEmbeddings, documents, expected_vectors
from tests.support.redis_server import start_server, storable

__all__ = ["BUILDERS", "start_server", "vectorstore_on"]
numbers = itertools.count()
FIELDS = [
    {"name": "even", "type": "numeric"},
    {"name": "number", "type": "numeric"},
    {"name": "parity", "type": "tag"},
]


def vectorstore_on(port: int, embeddings: Any, dimension: int, **options: Any) -> RedisVectorStore:
    """A vector store with an index of its own."""
    config = RedisConfig(
        index_name=f"nodes{next(numbers)}",
        redis_url=f"redis://127.0.0.1:{port}",
        embedding_dimensions=dimension,
        **{"metadata_schema": FIELDS, **options},
    )
    return RedisVectorStore(embeddings, config=config)


def built(folder: Path, n: int, servers: Any, **options: Any) -> Built:
    port = servers.address("redis_langchain")
    vectorstore = vectorstore_on(port, LangChainEmbeddings(), DIMENSION, **options)
    rows = [row.model_copy(update={"metadata": storable(row.metadata)}) for row in documents(n)]
    vectorstore.add_documents(rows, ids=[row.id for row in rows])
    client = redis.Redis("127.0.0.1", port)
    index, prefix = vectorstore.config.index_name, f"{vectorstore.config.key_prefix}:"

    def contents() -> Any:
        keys = sorted(client.scan_iter(f"{prefix}*", count=1000))
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            return [{k: v for k, v in row.items() if k != b"embedding"} for row in pipe.execute()]

    return Built(
        RedisStore(client, index, prefix=prefix),
        expected_vectors(n),
        contents,
        lambda: RedisStore.open(f"redis://127.0.0.1:{port}", index, prefix=prefix),
        "@even:[1 1]",
        vectorstore.delete,
    )


BUILDERS = {
    "redis-langchain": (built, {}),
    "redis-langchain-ip": (built, {"distance_metric": "IP", "vector_datatype": "FLOAT64"}),
    "redis-langchain-l2-hnsw": (built, {"distance_metric": "L2", "indexing_algorithm": "HNSW"}),
}
